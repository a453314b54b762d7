"""`/v1/evals`, as OpenAI's API has it."""

import asyncio

from fastapi import APIRouter

from tokenyard.evals.store import EvalStore, OrderBy
from tokenyard.evals.views import DeletedEvalView, EvalChange, EvalRequest, EvalView
from tokenyard.web.auth import FreshInferenceTenant, InferenceTenant
from tokenyard.web.pages import After, LongPageSize, Order, Page


def eval_router(evals: EvalStore) -> APIRouter:
    router = APIRouter(prefix="/v1/evals", tags=["evals"])

    @router.post("", status_code=201)
    async def create_eval(body: EvalRequest, tenant: FreshInferenceTenant) -> EvalView:
        made = await evals.create(
            tenant.organization,
            tenant.project,
            name=body.name,
            metadata=body.metadata or {},
            content=await asyncio.to_thread(body.checked),
        )
        return EvalView.of(made)

    @router.get("")
    async def list_evals(
        tenant: InferenceTenant,
        *,
        limit: LongPageSize = 20,
        after: After = None,
        order: Order = "asc",
        order_by: OrderBy = "created_at",
    ) -> Page[EvalView]:
        found = await evals.page(
            tenant.organization,
            tenant.project,
            limit=limit + 1,
            after=after or None,
            newest_first=order == "desc",
            order_by=order_by,
        )
        return Page[EvalView].of([EvalView.of(one) for one in found], limit)

    @router.get("/{eval_id}")
    async def retrieve_eval(eval_id: str, tenant: InferenceTenant) -> EvalView:
        return EvalView.of(await evals.get(tenant.organization, tenant.project, eval_id))

    @router.post("/{eval_id}")
    async def update_eval(eval_id: str, body: EvalChange, tenant: FreshInferenceTenant) -> EvalView:
        metadata = (body.metadata or {}) if "metadata" in body.model_fields_set else None
        return EvalView.of(
            await evals.change(tenant.organization, tenant.project, eval_id, name=body.name, metadata=metadata)
        )

    @router.delete("/{eval_id}")
    async def delete_eval(eval_id: str, tenant: FreshInferenceTenant) -> DeletedEvalView:
        """Delete an eval with its runs."""
        await evals.delete(tenant.organization, tenant.project, eval_id)
        return DeletedEvalView(eval_id=eval_id)

    return router
