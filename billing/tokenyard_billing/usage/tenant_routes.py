"""`GET /v1/organization/usage/completions` and `/costs`, in OpenAI's shapes.

`user_id` is not a member of the organization but one of its own users, as its requests name them by `user` or
`safety_identifier`; costs can be grouped by it, too.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.web.auth import BillingTenant
from tokenyard.web.queries import list_query, list_values
from tokenyard_billing.pricing.prices import PriceList, rated_lines
from tokenyard_billing.tables import COUNTS
from tokenyard_billing.usage.store import UsageFilter, UsageStore, UsageSum
from tokenyard_billing.usage.views import BucketPage, CompletionsResult, CostResult
from tokenyard_billing.usage.windows import WIDTHS_MS, SpanQuery, Window

_BUCKETS = {"1h": (24, 168), "1d": (7, 31)}  # by default, at most
_COLUMNS = {"project_id": "project", "api_key_id": "key", "model": "model", "user_id": "end_user"}
_LISTS = ("project_ids", "api_key_ids", "models", "user_ids", "group_by")
_DESCRIBED = {"parameters": [list_query(name, {"type": "string"}) for name in _LISTS]}


class _Which(msgspec.Struct, frozen=True):
    """What is filtered and grouped by."""

    projects: Sequence[str]
    keys: Sequence[str]
    models: Sequence[str]
    end_users: Sequence[str]
    group_by: Sequence[str]

    def columns(self, known: Mapping[str, str]) -> list[str]:
        """Return the columns to group by; one that is not among `known` raises `InvalidRequest`."""
        for name in self.group_by:
            if name not in known:
                raise InvalidRequest(f"Cannot group by {name!r}.", param="group_by")
        return [known[name] for name in self.group_by]


def _which(request: Request) -> _Which:
    return _Which(*(list_values(request, name) for name in _LISTS))


class CompletionsQuery(SpanQuery):
    """The most buckets of a page depend on their width. No usage is of batches: `batch` true finds none."""

    bucket_width: Literal["1h", "1d"] = "1d"
    limit: int | None = Field(default=None, ge=1)
    batch: bool | None = None

    def window(self, now_ms: int) -> Window:
        default, most = _BUCKETS[self.bucket_width]
        if self.limit is not None and self.limit > most:
            raise InvalidRequest(f"limit is at most {most} for this bucket width.", param="limit")
        return self.buckets(now_ms, width_ms=WIDTHS_MS[self.bucket_width], limit=self.limit or default)


class CostsQuery(SpanQuery):
    bucket_width: Literal["1d"] = "1d"
    limit: int = Field(default=7, ge=1, le=180)


def router(usage: UsageStore, prices: PriceList, clock: Clock) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["usage"])

    @routes.get("/usage/completions", openapi_extra=_DESCRIBED)
    async def completions(
        tenant: BillingTenant, query: Annotated[CompletionsQuery, Query()], which: Annotated[_Which, Depends(_which)]
    ) -> BucketPage[CompletionsResult]:
        columns = which.columns(_COLUMNS)
        window = query.window(clock.now_ms())
        none = query.batch is True
        sums = [] if none else await _sums(usage, tenant.organization, which, window, columns, kind="inference")
        results = ((found.bucket_ms, CompletionsResult.of(found)) for found in sums)
        return BucketPage[CompletionsResult].of(window, results)

    @routes.get("/costs", openapi_extra=_DESCRIBED)
    async def costs(
        tenant: BillingTenant, query: Annotated[CostsQuery, Query()], which: Annotated[_Which, Depends(_which)]
    ) -> BucketPage[CostResult]:
        columns = which.columns(_COLUMNS | {"line_item": "price"})
        by_line = "price" in columns
        window = query.buckets(clock.now_ms(), width_ms=WIDTHS_MS[query.bucket_width], limit=query.limit)
        sums = await _sums(usage, tenant.organization, which, window, [*columns, "model"] if by_line else columns)
        results = (
            (found.bucket_ms, result)
            for found in sums
            for result in (_by_line(prices, found) if by_line else [CostResult.of(found, found.amount)])
        )
        return BucketPage[CostResult].of(window, results)

    return routes


async def _sums(
    usage: UsageStore,
    organization: OrganizationId,
    which: _Which,
    window: Window,
    columns: Sequence[str],
    *,
    kind: str | None = None,
) -> list[UsageSum]:
    wanted = UsageFilter(
        *(window.start_ms, window.end_ms), which.projects, which.keys, which.models, which.end_users, kind
    )
    return await usage.sums(organization, wanted, width_ms=window.width_ms, group_by=columns)


def _by_line(prices: PriceList, found: UsageSum) -> list[CostResult]:
    lines = rated_lines(
        found.model or "", prices.by_id(found.price or ""), **{name: getattr(found, name) for name in COUNTS}
    )
    return [CostResult.of(found, line.amount, line=line) for line in lines]
