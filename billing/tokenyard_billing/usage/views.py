"""Usage as the API shows it: in OpenAI's shapes for tenants, in our own for operators."""

from collections.abc import Iterable
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel

from tokenyard.core.money import NANO_PER_DOLLAR, to_dollars
from tokenyard.web.pages import Identified
from tokenyard_billing.pricing.prices import RatedLine, Unit
from tokenyard_billing.usage.store import UsageSum
from tokenyard_billing.usage.windows import Window
from tokenyard_billing.views import Dollars, View, of

Result = TypeVar("Result", bound=BaseModel)


class Bucket(BaseModel, Generic[Result]):
    """One bucket of time, in unix seconds; without usage it has no results."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[Result]


class BucketPage(BaseModel, Generic[Result]):
    """Buckets one after another; `next_page` goes into `page` of the next request."""

    object: Literal["page"] = "page"
    data: list[Bucket[Result]]
    has_more: bool
    next_page: str | None

    @classmethod
    def of(cls, window: Window, results: Iterable[tuple[int, Result]]) -> Self:
        """Put results, each with the start of its bucket in unix milliseconds, into the buckets of `window`."""
        by_bucket: dict[int, list[Result]] = {start_ms: [] for start_ms in window.starts_ms}
        for bucket_ms, result in results:
            by_bucket[bucket_ms].append(result)
        data: list[Bucket[Result]] = [
            Bucket(start_time=start_ms // 1000, end_time=(start_ms + window.width_ms) // 1000, results=found)
            for start_ms, found in by_bucket.items()
        ]
        return cls(data=data, has_more=window.next_page is not None, next_page=window.next_page)


class UsageFigures(View):
    """Charged usage; `cached_tokens` are among `prompt_tokens`, `amount` is nano-dollars.

    `hosted_hours` are those of fine-tunes that were live, but for those in memory at all times: `pinned_hours`.
    `stored_months` are gigabytes that were kept for a month, `fees` what plans asked.
    """

    object: Literal["usage"] = "usage"
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    hosted_hours: int
    pinned_hours: int
    stored_months: int
    fees: int
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]


class UsageResult(UsageFigures):
    """Usage of one group; what was not grouped by is null."""

    organization: str | None
    model: str | None


class ModelUsage(UsageFigures, Identified):
    """Usage of one model; `id` is its name."""

    id: Annotated[str, of("model")]
    model: str


class CompletionsResult(BaseModel):
    """OpenAI's `organization.usage.completions.result`."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    input_uncached_tokens: int
    input_cache_write_tokens: int = 0
    input_text_tokens: int
    input_cached_text_tokens: int
    output_text_tokens: int
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    num_model_requests: int
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    model: str | None
    batch: None = None
    service_tier: None = None

    @classmethod
    def of(cls, found: UsageSum) -> Self:
        fresh = found.prompt_tokens - found.cached_tokens
        return cls(
            input_tokens=found.prompt_tokens,
            output_tokens=found.completion_tokens,
            input_cached_tokens=found.cached_tokens,
            input_uncached_tokens=fresh,
            input_text_tokens=fresh,
            input_cached_text_tokens=found.cached_tokens,
            output_text_tokens=found.completion_tokens,
            num_model_requests=found.requests,
            project_id=found.project,
            user_id=found.end_user or None,
            api_key_id=found.key,
            model=found.model,
        )


class CostAmount(BaseModel):
    """OpenAI's number is a float; `exact` is the same amount without one."""

    value: float
    currency: Literal["usd"] = "usd"
    exact: str


class CostResult(BaseModel):
    """OpenAI's `organization.costs.result`, and `user_id`; `line_item` is a model and a kind, or storage."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: CostAmount
    line_item: str | None
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    quantity: int | None
    quantity_unit: Unit | None

    @classmethod
    def of(cls, found: UsageSum, amount: int, line: RatedLine | None = None) -> Self:
        return cls(
            amount=CostAmount(value=amount / NANO_PER_DOLLAR, exact=to_dollars(amount)),
            line_item=None if line is None else f"{line.model}, {line.kind}",
            project_id=found.project or None,
            user_id=found.end_user or None,
            api_key_id=found.key or None,
            quantity=None if line is None else line.quantity,
            quantity_unit=None if line is None else line.unit,
        )
