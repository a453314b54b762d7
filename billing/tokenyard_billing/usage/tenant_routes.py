"""`GET /v1/organization/usage/completions` and `/costs`, in OpenAI's shapes."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.web.auth import CurrentTenant
from tokenyard_billing.pricing.prices import PriceList, rated_lines
from tokenyard_billing.usage.store import UsageFilter, UsageStore, UsageSum
from tokenyard_billing.usage.views import BucketPage, CompletionsResult, CostResult
from tokenyard_billing.usage.windows import WIDTHS_MS, Window

_BUCKETS = {"1h": (24, 168), "1d": (7, 31)}  # by default, at most
_COST_DAYS, _MAX_COST_DAYS = 7, 180
_COLUMNS = {"project_id": "project", "api_key_id": "key", "model": "model"}
_MAX_VALUES = 100
Seconds = Annotated[int, Query(ge=0, le=10**10)]
_Limit = Annotated[int | None, Query(ge=1)]


class _Which(msgspec.Struct, frozen=True):
    """What is filtered and grouped by."""

    projects: Sequence[str]
    keys: Sequence[str]
    models: Sequence[str]
    group_by: Sequence[str]

    def columns(self, known: Mapping[str, str]) -> list[str]:
        """Return the columns to group by.

        Raises:
            InvalidRequest: one is none of `known`.
        """
        for name in self.group_by:
            if name not in known:
                raise InvalidRequest(f"Cannot group by {name!r}.", param="group_by")
        return [known[name] for name in self.group_by]


def _which(request: Request) -> _Which:
    """Read lists as `name=a&name=b` and as OpenAI's clients write them, `name[]=a&name[]=b`."""

    def read(name: str) -> list[str]:
        values = request.query_params.getlist(name) + request.query_params.getlist(f"{name}[]")
        if len(values) > _MAX_VALUES:
            raise InvalidRequest(f"{name} has more than {_MAX_VALUES} values.", param=name)
        return values

    return _Which(read("project_ids"), read("api_key_ids"), read("models"), read("group_by"))


def router(usage: UsageStore, prices: PriceList, clock: Clock) -> APIRouter:
    """Return the usage routes of tenants; without an `end_time` they tell of everything up to now."""
    routes = APIRouter(prefix="/v1/organization", tags=["usage"])

    def now_s() -> int:
        return math.ceil(clock.now_ms() / 1000)

    @routes.get("/usage/completions")
    async def completions(
        *,
        tenant: CurrentTenant,
        which: Annotated[_Which, Depends(_which)],
        start_time: Seconds,
        end_time: Seconds | None = None,
        bucket_width: Literal["1h", "1d"] = "1d",
        limit: _Limit = None,
        page: str | None = None,
    ) -> BucketPage[CompletionsResult]:
        columns = which.columns(_COLUMNS)
        count = _bounded(limit, *_BUCKETS[bucket_width])
        end_s = now_s() if end_time is None else end_time
        window = Window.page(start_time, end_s, page, width_ms=WIDTHS_MS[bucket_width], limit=count)
        sums = await _sums(usage, tenant.organization, which, window, columns, kind="inference")
        results = ((found.bucket_ms, CompletionsResult.of(found)) for found in sums)
        return BucketPage[CompletionsResult].of(window, results)

    @routes.get("/costs")
    async def costs(
        *,
        tenant: CurrentTenant,
        which: Annotated[_Which, Depends(_which)],
        start_time: Seconds,
        end_time: Seconds | None = None,
        bucket_width: Literal["1d"] = "1d",
        limit: _Limit = None,
        page: str | None = None,
    ) -> BucketPage[CostResult]:
        columns = which.columns(_COLUMNS | {"line_item": "price"})
        by_line = "price" in columns
        count = _bounded(limit, _COST_DAYS, _MAX_COST_DAYS)
        end_s = now_s() if end_time is None else end_time
        window = Window.page(start_time, end_s, page, width_ms=WIDTHS_MS[bucket_width], limit=count)
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
    wanted = UsageFilter(window.start_ms, window.end_ms, which.projects, which.keys, which.models, kind)
    return await usage.sums(organization, wanted, width_ms=window.width_ms, group_by=columns)


def _bounded(limit: int | None, default: int, most: int) -> int:
    if limit is not None and limit > most:
        raise InvalidRequest(f"limit is at most {most} for this bucket width.", param="limit")
    return limit or default


def _by_line(prices: PriceList, found: UsageSum) -> list[CostResult]:
    lines = rated_lines(
        found.model or "",
        prices.by_id(found.price or ""),
        prompt_tokens=found.prompt_tokens,
        cached_tokens=found.cached_tokens,
        completion_tokens=found.completion_tokens,
        trained_tokens=found.trained_tokens,
    )
    return [
        CostResult.of(found, line.amount, line_item=f"{line.model}, {line.kind}", quantity=line.quantity)
        for line in lines
    ]
