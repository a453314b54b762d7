"""Tells events that can be taken in from those that never can; a dead event must not stop the others."""

from collections.abc import Mapping

import msgspec

from tokenyard.core.ids import AttemptId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import HoldExpired, TrainingFinished, UsageEvent, decode_event
from tokenyard.metering.stream import FIELD
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import MODEL_LENGTH, PRICE_LENGTH

MAX_TOKENS = 10**12  # far above any context; keeps every sum within 64 bits
MAX_MS = 253_402_300_800_000  # the year 10000
_ID_LENGTH = 96
_BUDGET_LENGTH = 256
_ENDPOINT_LENGTH = 64
_TEXTS = (
    ("organization", _ID_LENGTH),
    ("project", _ID_LENGTH),
    ("key", _ID_LENGTH),
    ("model", MODEL_LENGTH),
    ("base_model", MODEL_LENGTH),
    ("price", PRICE_LENGTH),
)


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
    if problem := _problem(event, bucket):
        raise Malformed(problem)
    price = event.price if isinstance(event, TrainingFinished) else event.claims.price
    prices.by_id(price)
    return event


def _problem(event: UsageEvent, bucket: int) -> str | None:
    """Return what is wrong, or None. It runs for every event, so it is plain loops."""
    if isinstance(event, TrainingFinished):
        source: MeterClaims | TrainingFinished = event
        counts: tuple[str, ...] = ("trained_tokens",)
        counted: TrainingFinished | TokenUsage = event
        texts = _bad_text("job", event.job, _ID_LENGTH)
    else:
        source = event.claims
        counted = TokenUsage(0, 0) if isinstance(event, HoldExpired) else event.usage
        counts = ("prompt_tokens", "completion_tokens", "cached_tokens")
        texts = _bad_attempt(source.attempt) or _bad_text("endpoint", source.endpoint, _ENDPOINT_LENGTH)
        if counted.cached_tokens > counted.prompt_tokens:
            return "more cached tokens than prompt tokens"
    for name in counts:
        if not 0 <= getattr(counted, name) <= MAX_TOKENS:
            return f"{name} is {getattr(counted, name)}"
    return texts or _bad_source(source, bucket)


def _bad_source(source: MeterClaims | TrainingFinished, bucket: int) -> str | None:
    for name, length in _TEXTS:
        if found := _bad_text(name, getattr(source, name), length):
            return found
    for budget in source.budgets:
        if found := _bad_text("budgets", budget, _BUDGET_LENGTH):
            return found
    if not 0 < source.admitted_at_ms < MAX_MS:
        return f"admitted_at_ms is {source.admitted_at_ms}"
    if bucket_of(source.organization) != bucket:
        return f"organization {source.organization} does not live in bucket {bucket}"
    return None


def _bad_attempt(attempt: AttemptId) -> str | None:
    request, _, number = attempt.rpartition(".")
    if not request or not (number.isascii() and number.isdigit()) or int(number) < 1:
        return f"{attempt!r} is not an attempt's id"
    return _bad_text("attempt", attempt, _ID_LENGTH)


def _bad_text(name: str, value: str, length: int) -> str | None:
    if 0 < len(value) <= length and "\x00" not in value:
        return None
    return f"{name} is empty, too long, or holds a zero byte"
