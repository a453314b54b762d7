"""Dunning for operators: to see how far it has come, and to except organizations from it."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.dunning.operator_store import DunningOperatorStore
from tokenyard_billing.dunning.views import DunningExceptionView, DunningView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import ListSize


class DunningBody(BaseModel, extra="forbid"):
    """`exempt`: none of its invoices is dunned. `paused_until_ms`: none is before then; 0 ends the pause."""

    exempt: bool = False
    paused_until_ms: int = Field(default=0, ge=0, lt=2**53)
    reason: str = Field(min_length=1, max_length=500, pattern=NO_NUL)


def router(find: OrganizationLookup, store: DunningOperatorStore) -> APIRouter:
    """Return the routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/dunning")
    async def dunned(
        _operator: CurrentOperator, organization: str | None = None, after: After = None, limit: ListSize = 100
    ) -> Page[DunningView]:
        """List the invoices that were dunned, the last step first."""
        owner = None if organization is None else await find(organization)
        found = await store.dunned(organization=owner, after=after, limit=limit + 1)
        return Page[DunningView].of([DunningView.model_validate(one) for one in found], limit)

    @routes.get("/organizations/{organization}/dunning")
    async def exception(_operator: CurrentOperator, organization: str) -> DunningExceptionView:
        return DunningExceptionView.model_validate(await store.exception(await find(organization)))

    @routes.put("/organizations/{organization}/dunning")
    async def replace_exception(
        operator: CurrentOperator, organization: str, body: DunningBody
    ) -> DunningExceptionView:
        """Except an organization from dunning, or end that; who is exempt is blocked no more."""
        stated = await store.state(
            await find(organization),
            exempt=body.exempt,
            paused_until_ms=body.paused_until_ms,
            reason=body.reason,
            actor=operator.key,
        )
        return DunningExceptionView.model_validate(stated)

    return routes
