"""Tells events that can be taken in from those that never can; a dead event must not stop the others."""

from collections.abc import Iterator, Mapping

import msgspec

from tokenyard.core.ids import AttemptId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.usage import MeterClaims, TokenUsage, TrainingFinished, UsageEvent, decode_event
from tokenyard.storage.usage_stream import FIELD
from tokenyard_billing.prices import PriceList
from tokenyard_billing.tables import MODEL_LENGTH, PRICE_LENGTH

MAX_TOKENS = 10**12  # far above any context; keeps every sum within 64 bits
MAX_MS = 253_402_300_800_000  # the year 10000
_ID_LENGTH = 96


class Malformed(ValueError):
    """The entry can never be taken in; the message says why."""


def read_event(fields: Mapping[bytes, bytes], bucket: int, prices: PriceList) -> UsageEvent:
    """Return the event of one stream entry.

    Raises:
        Malformed: it is not one of ours, whatever happens later.
        UnknownPrice: its price is on no installed card; a newer card may bring it.
    """
    try:
        event = decode_event(fields[FIELD])
    except KeyError:
        raise Malformed("the entry has no event") from None
    except msgspec.MsgspecError as error:
        raise Malformed(str(error)) from error
    for problem in _problems(event, bucket):
        raise Malformed(problem)
    price = event.price if isinstance(event, TrainingFinished) else event.claims.price
    prices.by_id(price)
    return event


def _problems(event: UsageEvent, bucket: int) -> Iterator[str]:
    if isinstance(event, TrainingFinished):
        yield from _count("trained_tokens", event.trained_tokens)
        yield from _text("job", event.job, _ID_LENGTH)
        source: TrainingFinished | MeterClaims = event
    else:
        yield from _attempt(event.claims.attempt)
        yield from _usage(getattr(event, "usage", None))
        source = event.claims
    values = msgspec.structs.asdict(source)
    for name in ("organization", "project", "key"):
        yield from _text(name, values[name], _ID_LENGTH)
    yield from _text("model", values["model"], MODEL_LENGTH)
    yield from _text("base_model", values["base_model"], MODEL_LENGTH)
    yield from _text("price", values["price"], PRICE_LENGTH)
    yield from _text("endpoint", values.get("endpoint", "/"), 64)
    for name in values["budgets"]:
        yield from _text("budgets", name, 256)
    if not 0 < values["admitted_at_ms"] < MAX_MS:
        yield f"admitted_at_ms is {values['admitted_at_ms']}"
    if bucket_of(values["organization"]) != bucket:
        yield f"organization {values['organization']} does not live in bucket {bucket}"


def _attempt(attempt: AttemptId) -> Iterator[str]:
    yield from _text("attempt", attempt, _ID_LENGTH)
    request, _, number = attempt.rpartition(".")
    if not request or not (number.isascii() and number.isdigit()) or int(number) < 1:
        yield f"{attempt!r} is not an attempt's id"


def _usage(usage: TokenUsage | None) -> Iterator[str]:
    if usage is None:
        return
    yield from _count("prompt_tokens", usage.prompt_tokens)
    yield from _count("completion_tokens", usage.completion_tokens)
    yield from _count("cached_tokens", usage.cached_tokens)
    if usage.cached_tokens > usage.prompt_tokens:
        yield "more cached tokens than prompt tokens"


def _count(name: str, value: int) -> Iterator[str]:
    if not 0 <= value <= MAX_TOKENS:
        yield f"{name} is {value}"


def _text(name: str, value: str, length: int) -> Iterator[str]:
    if not 0 < len(value) <= length or "\x00" in value:
        yield f"{name} is empty, too long, or holds a zero byte"
