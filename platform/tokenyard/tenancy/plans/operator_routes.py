"""Operator routes of plans."""

from fastapi import APIRouter

from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import NewPlan, PlanChanges, PlanDeleted, PlanView
from tokenyard.tenancy.push import TenancyPush
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page, PageSize


def plans_router(plans: PlanOperatorStore, push: TenancyPush) -> APIRouter:
    """Return the routes; `{plan}` is an id or a name."""
    routes = APIRouter(prefix="/admin/plans", tags=["tenancy"])

    @routes.post("")
    async def create_plan(operator: CurrentOperator, body: NewPlan) -> PlanView:
        return await plans.create(body.stated(), actor=operator.key)

    @routes.get("")
    async def list_plans(_operator: CurrentOperator, after: After = None, limit: PageSize = 20) -> Page[PlanView]:
        return Page[PlanView].of(await plans.plans(after=after, limit=limit + 1), limit)

    @routes.get("/{plan}")
    async def one_plan(_operator: CurrentOperator, plan: str) -> PlanView:
        return await plans.plan(plan)

    @routes.patch("/{plan}")
    async def change_plan(operator: CurrentOperator, plan: str, body: PlanChanges) -> PlanView:
        """Change what the body names for every organization on the plan: prices in 15 minutes, all else at once."""
        changed, messages = await plans.change(
            plan,
            name=body.name,
            limits=None if body.limits is None else body.limits.applied_to,
            rules=body.rules(),
            actor=operator.key,
        )
        await push.changed(messages)
        return changed

    @routes.delete("/{plan}")
    async def delete_plan(operator: CurrentOperator, plan: str) -> PlanDeleted:
        """Delete a plan that no organization is on."""
        return PlanDeleted(id=await plans.delete(plan, actor=operator.key))

    return routes
