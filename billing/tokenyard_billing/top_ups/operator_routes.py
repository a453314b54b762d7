"""Organizations' automatic top-ups for operators: to read, and to end."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.top_ups.automatic import AutomaticTopUps
from tokenyard_billing.top_ups.views import AutomaticTopUpView, DeletedAutomaticTopUpView


def router(find: OrganizationLookup, automatic: AutomaticTopUps) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin/organizations/{organization}/automatic_top_up", tags=["billing"])

    @routes.get("")
    async def automatic_top_up(_operator: CurrentOperator, organization: str) -> AutomaticTopUpView:
        return AutomaticTopUpView.model_validate(await automatic.get(await find(organization)))

    @routes.delete("")
    async def stop(operator: CurrentOperator, organization: str) -> DeletedAutomaticTopUpView:
        """Buy nothing by itself any more; only the organization can begin it again."""
        owner = await find(organization)
        await automatic.stop(owner, actor=operator.key)
        return DeletedAutomaticTopUpView(id=owner)

    return routes
