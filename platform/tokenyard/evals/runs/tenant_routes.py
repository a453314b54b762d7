"""`/v1/evals/{eval_id}/runs` and their output items, as OpenAI's API has them."""

from fastapi import APIRouter

from tokenyard.evals.runs.creation import EvalRunCreation
from tokenyard.evals.runs.run import EvalRunState, ItemState
from tokenyard.evals.runs.store import EvalRunStore
from tokenyard.evals.runs.views import (
    DeletedEvalRunView,
    EvalRunRequest,
    EvalRunView,
    ItemStatus,
    OutputItemView,
    RunStatus,
)
from tokenyard.evals.store import EvalStore
from tokenyard.web.auth import FreshInferenceTenant, InferenceTenant
from tokenyard.web.pages import After, LongPageSize, Order, Page, PageSize


def eval_run_router(evals: EvalStore, runs: EvalRunStore, creation: EvalRunCreation) -> APIRouter:
    router = APIRouter(prefix="/v1/evals/{eval_id}/runs", tags=["evals"])

    @router.post("", status_code=201)
    async def create_eval_run(eval_id: str, body: EvalRunRequest, tenant: FreshInferenceTenant) -> EvalRunView:
        """Create a run. What it asks of models is charged as requests of the key."""
        return EvalRunView.of(await creation.create(tenant, eval_id, body))

    @router.get("")
    async def list_eval_runs(
        eval_id: str,
        tenant: InferenceTenant,
        *,
        limit: LongPageSize = 20,
        after: After = None,
        order: Order = "asc",
        status: RunStatus | None = None,
    ) -> Page[EvalRunView]:
        found = await evals.get(tenant.organization, tenant.project, eval_id)
        page = await runs.page(
            tenant.organization,
            tenant.project,
            found.id,
            limit=limit + 1,
            after=after or None,
            newest_first=order == "desc",
            state=None if status is None else EvalRunState(status),
        )
        return Page[EvalRunView].of([EvalRunView.of(run) for run in page], limit)

    @router.get("/{run_id}")
    async def retrieve_eval_run(eval_id: str, run_id: str, tenant: InferenceTenant) -> EvalRunView:
        return EvalRunView.of(await runs.get(tenant.organization, tenant.project, eval_id, run_id))

    @router.post("/{run_id}")  # as OpenAI documents it; its clients call the other
    @router.post("/{run_id}/cancel")
    async def cancel_eval_run(eval_id: str, run_id: str, tenant: FreshInferenceTenant) -> EvalRunView:
        """Cancel a run: it asks nothing more, and what was graded stays."""
        return EvalRunView.of(await runs.cancel(tenant.organization, tenant.project, eval_id, run_id))

    @router.delete("/{run_id}")
    async def delete_eval_run(eval_id: str, run_id: str, tenant: FreshInferenceTenant) -> DeletedEvalRunView:
        """Delete a run with its output items; one that has not ended asks nothing more."""
        await runs.delete(tenant.organization, tenant.project, eval_id, run_id)
        return DeletedEvalRunView(run_id=run_id)

    @router.get("/{run_id}/output_items")
    async def list_output_items(
        eval_id: str,
        run_id: str,
        tenant: InferenceTenant,
        *,
        limit: PageSize = 20,
        after: After = None,
        order: Order = "asc",
        status: ItemStatus | None = None,
    ) -> Page[OutputItemView]:
        run = await runs.get(tenant.organization, tenant.project, eval_id, run_id)
        items = await runs.items(
            tenant.organization,
            run,
            limit=limit + 1,
            after=after or None,
            newest_first=order == "desc",
            state=None if status is None else ItemState(status),
        )
        return Page[OutputItemView].of([OutputItemView.of(run, item) for item in items], limit)

    @router.get("/{run_id}/output_items/{output_item_id}")
    async def retrieve_output_item(
        eval_id: str, run_id: str, output_item_id: str, tenant: InferenceTenant
    ) -> OutputItemView:
        run = await runs.get(tenant.organization, tenant.project, eval_id, run_id)
        return OutputItemView.of(run, await runs.item(tenant.organization, run, output_item_id))

    return router
