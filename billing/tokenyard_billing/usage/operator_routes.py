"""Usage across organizations: `GET /admin/usage`, and one organization's month by model."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import Page
from tokenyard_billing.periods import month_of
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.usage.operator_store import UsageOperatorStore
from tokenyard_billing.usage.store import UsageFilter, UsageStore
from tokenyard_billing.usage.views import BucketPage, ModelUsage, UsageResult
from tokenyard_billing.usage.windows import WIDTHS_MS, SpanQuery, Window
from tokenyard_billing.views import Month

MAX_RESULTS = 10_000  # of one page
DEFAULT_BUCKETS = 24


class UsageQuery(SpanQuery, extra="forbid"):
    """Whole buckets of a span; without `bucket_width` it is one bucket from start to end."""

    bucket_width: Literal["1h", "1d"] | None = None
    group_by: list[Literal["organization", "model"]] = Field(default=[], max_length=2)
    organization: str | None = Field(default=None, max_length=96, description="An id or a slug.")
    limit: int = Field(default=DEFAULT_BUCKETS, ge=1, le=168, description="Buckets of one page.")

    def window(self, now_ms: int) -> Window:
        if self.bucket_width is not None:
            return self.buckets(now_ms, width_ms=WIDTHS_MS[self.bucket_width], limit=self.limit)
        if self.page is not None:
            raise InvalidRequest("Without bucket_width there is only one page.", param="page")
        return Window.whole(self.start_time, self.end_s(now_ms))


def router(find: OrganizationLookup, usage: UsageStore, across: UsageOperatorStore, clock: Clock) -> APIRouter:
    """Return the operator's usage routes; `organization` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["usage"])

    @routes.get("/usage")
    async def of_all(_operator: CurrentOperator, query: Annotated[UsageQuery, Query()]) -> BucketPage[UsageResult]:
        """Sum usage of all organizations or of one. A page may end early where its buckets hold many groups."""
        window = query.window(clock.now_ms())
        owner = None if query.organization is None else await find(query.organization)
        sums = await across.sums(
            UsageFilter(window.start_ms, window.end_ms),
            owner,
            width_ms=window.width_ms,
            group_by=query.group_by,
            limit=MAX_RESULTS + 1,
        )
        if len(sums) > MAX_RESULTS:  # the last bucket that was read may be cut off
            window = window.until(sums[-1].bucket_ms)
            if not window.count:
                raise InvalidRequest("Too many groups: name an organization, or group by less.", param="group_by")
        found = ((one.bucket_ms, UsageResult.model_validate(one)) for one in sums if one.bucket_ms < window.end_ms)
        return BucketPage[UsageResult].of(window, found)

    @routes.get("/organizations/{organization}/usage")
    async def of_month(_operator: CurrentOperator, organization: str, month: Month = None) -> Page[ModelUsage]:
        """Sum a UTC month's usage by model; default: this month."""
        owner = await find(organization)
        wanted = month or month_of(clock.now_ms())
        found = [ModelUsage.model_validate(one) for one in await usage.month(owner, wanted)]
        return Page[ModelUsage].of(found, len(found))

    return routes
