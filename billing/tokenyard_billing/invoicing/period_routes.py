"""An organization's periods, and the time zone in which they end, for operators."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.core.clock import Clock
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.invoicing.time_zones import BillingTimeZones
from tokenyard_billing.invoicing.views import PeriodView, TimeZoneView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import ListSize


class TimeZoneBody(BaseModel, extra="forbid"):
    """An IANA name, such as Europe/Berlin."""

    time_zone: str = Field(min_length=1, max_length=64, pattern=NO_NUL)


def router(find: OrganizationLookup, invoices: InvoiceStore, zones: BillingTimeZones, clock: Clock) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin/organizations/{organization}", tags=["billing"])

    @routes.get("/time_zone")
    async def time_zone(_operator: CurrentOperator, organization: str) -> TimeZoneView:
        return TimeZoneView.model_validate(await zones.get(await find(organization)))

    @routes.post("/time_zone")
    async def change(operator: CurrentOperator, organization: str, body: TimeZoneBody) -> TimeZoneView:
        """Let the organization's periods end in a time zone, from the next one on. Monthly limits stay UTC months."""
        owner = await find(organization)
        return TimeZoneView.model_validate(await zones.change(owner, body.time_zone, actor=operator.key))

    @routes.get("/periods")
    async def periods(
        _operator: CurrentOperator, organization: str, after: After = None, limit: ListSize = 100
    ) -> Page[PeriodView]:
        """List the periods of which something was charged, the newest first."""
        found = await invoices.periods(await find(organization), after=after, limit=limit + 1)
        now_ms = clock.now_ms()
        return Page[PeriodView].of([PeriodView.at(one, now_ms) for one in found], limit)

    return routes
