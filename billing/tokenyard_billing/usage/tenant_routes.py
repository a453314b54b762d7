"""`GET /v1/organization/usage/completions` and `/costs`, in OpenAI's shapes."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NANO_PER_DOLLAR, to_dollars
from tokenyard.web.auth import CurrentTenant
from tokenyard_billing.periods import DAY_MS, HOUR_MS
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rating import rated_lines
from tokenyard_billing.usage.store import UsageFilter, UsageStore, UsageSum

_WIDTHS = {"1h": (HOUR_MS, 24, 168), "1d": (DAY_MS, 7, 31)}  # width, buckets by default, at most
_COST_DAYS, _MAX_COST_DAYS = 7, 180
_COLUMNS = {"project_id": "project", "api_key_id": "key", "model": "model"}
_PAGE_PREFIX = "page_"
_MAX_VALUES = 100
_Seconds = Annotated[int, Query(ge=0, le=10**10)]


class _Window(msgspec.Struct, frozen=True):
    """The buckets of one page."""

    width_ms: int
    starts_ms: Sequence[int]
    next_ms: int | None

    @property
    def end_ms(self) -> int:
        return self.starts_ms[-1] + self.width_ms if self.starts_ms else 0


class _Which(msgspec.Struct, frozen=True):
    """What is filtered and grouped by."""

    projects: Sequence[str]
    keys: Sequence[str]
    models: Sequence[str]
    group_by: Sequence[str]


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

    @routes.get("/usage/completions")
    async def completions(
        *,
        tenant: CurrentTenant,
        which: Annotated[_Which, Depends(_which)],
        start_time: _Seconds,
        end_time: _Seconds | None = None,
        bucket_width: Literal["1h", "1d"] = "1d",
        limit: Annotated[int | None, Query(ge=1)] = None,
        page: str | None = None,
    ) -> dict[str, Any]:
        width_ms, default, most = _WIDTHS[bucket_width]
        columns = _grouped(which.group_by, _COLUMNS)
        end_s = math.ceil(clock.now_ms() / 1000) if end_time is None else end_time
        window = _window(start_time, end_s, page, width_ms=width_ms, limit=_bounded(limit, default, most))
        sums = await _sums(usage, tenant.organization, which, window, columns, kind="inference")
        return _page(window, [(found.bucket_ms, _completions_result(found)) for found in sums])

    @routes.get("/costs")
    async def costs(
        *,
        tenant: CurrentTenant,
        which: Annotated[_Which, Depends(_which)],
        start_time: _Seconds,
        end_time: _Seconds | None = None,
        bucket_width: Literal["1d"] = "1d",
        limit: Annotated[int | None, Query(ge=1)] = None,
        page: str | None = None,
    ) -> dict[str, Any]:
        by_line = "line_item" in which.group_by
        columns = _grouped([name for name in which.group_by if name != "line_item"], _COLUMNS)
        width_ms, _, _ = _WIDTHS[bucket_width]
        end_s = math.ceil(clock.now_ms() / 1000) if end_time is None else end_time
        days = _bounded(limit, _COST_DAYS, _MAX_COST_DAYS)
        window = _window(start_time, end_s, page, width_ms=width_ms, limit=days)
        if not by_line:
            sums = await _sums(usage, tenant.organization, which, window, columns)
            return _page(window, [(found.bucket_ms, _cost_result(found, found.amount)) for found in sums])
        sums = await _sums(usage, tenant.organization, which, window, [*columns, "model", "price"])
        return _page(window, [(found.bucket_ms, result) for found in sums for result in _line_results(prices, found)])

    return routes


async def _sums(
    usage: UsageStore,
    organization: OrganizationId,
    which: _Which,
    window: _Window,
    columns: Sequence[str],
    *,
    kind: str | None = None,
) -> list[UsageSum]:
    if not window.starts_ms:
        return []
    wanted = UsageFilter(window.starts_ms[0], window.end_ms, which.projects, which.keys, which.models, kind)
    return await usage.sums(organization, wanted, width_ms=window.width_ms, group_by=columns)


def _window(start_s: int, end_s: int, page: str | None, *, width_ms: int, limit: int) -> _Window:
    first_ms = start_s * 1000 // width_ms * width_ms
    if page is not None:
        first_ms = max(first_ms, _read_page(page, width_ms))
    count = -(-(end_s * 1000 - first_ms) // width_ms)
    starts_ms = [first_ms + index * width_ms for index in range(max(0, min(count, limit)))]
    return _Window(width_ms, starts_ms, first_ms + limit * width_ms if count > limit else None)


def _read_page(page: str, width_ms: int) -> int:
    number = page.removeprefix(_PAGE_PREFIX)
    if number == page or not (number.isascii() and number.isdigit()) or len(number) > 16:
        raise InvalidRequest("This is not a page that we gave.", param="page")
    return int(number) // width_ms * width_ms


def _bounded(limit: int | None, default: int, most: int) -> int:
    if limit is not None and limit > most:
        raise InvalidRequest(f"limit is at most {most} for this bucket width.", param="limit")
    return limit or default


def _grouped(names: Sequence[str], known: dict[str, str]) -> list[str]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidRequest(f"Cannot group by {unknown[0]!r}.", param="group_by")
    return [known[name] for name in names]


def _page(window: _Window, results: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    by_bucket: dict[int, list[dict[str, Any]]] = {start_ms: [] for start_ms in window.starts_ms}
    for bucket_ms, result in results:
        by_bucket[bucket_ms].append(result)
    data = [
        {
            "object": "bucket",
            "start_time": start_ms // 1000,
            "end_time": (start_ms + window.width_ms) // 1000,
            "results": found,
        }
        for start_ms, found in by_bucket.items()
    ]
    more = window.next_ms is not None
    return {
        "object": "page",
        "data": data,
        "has_more": more,
        "next_page": f"{_PAGE_PREFIX}{window.next_ms}" if more else None,
    }


def _completions_result(found: UsageSum) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": found.prompt_tokens,
        "output_tokens": found.completion_tokens,
        "input_cached_tokens": found.cached_tokens,
        "input_uncached_tokens": found.prompt_tokens - found.cached_tokens,
        "input_cache_write_tokens": 0,
        "input_text_tokens": found.prompt_tokens - found.cached_tokens,
        "input_cached_text_tokens": found.cached_tokens,
        "output_text_tokens": found.completion_tokens,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": found.requests,
        "project_id": found.project,
        "user_id": None,
        "api_key_id": found.key,
        "model": found.model,
        "batch": None,
        "service_tier": None,
    }


def _cost_result(
    found: UsageSum, amount: int, *, line_item: str | None = None, quantity: int | None = None
) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        # OpenAI's number is a float; `exact` is the same amount without one.
        "amount": {"value": amount / NANO_PER_DOLLAR, "currency": "usd", "exact": to_dollars(amount)},
        "line_item": line_item,
        "project_id": found.project,
        "api_key_id": found.key,
        "quantity": quantity,
        "quantity_unit": None if quantity is None else "tokens",
    }


def _line_results(prices: PriceList, found: UsageSum) -> list[dict[str, Any]]:
    lines = rated_lines(
        prices.by_id(found.price or ""),
        prompt_tokens=found.prompt_tokens,
        cached_tokens=found.cached_tokens,
        completion_tokens=found.completion_tokens,
        trained_tokens=found.trained_tokens,
    )
    return [
        _cost_result(found, line.amount, line_item=f"{found.model}, {line.kind}", quantity=line.quantity)
        for line in lines
    ]
