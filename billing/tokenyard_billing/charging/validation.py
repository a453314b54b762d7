"""Tells events that can be taken in from those that never can; a dead event must not stop the others."""

from collections.abc import Mapping

from tokenyard.core.ids import AttemptId
from tokenyard.core.money import STORAGE
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.usage import MAX_END_USER_CHARS, MAX_TIER_CHARS, MeterClaims, TokenUsage
from tokenyard.metering.events import (
    AdapterHosted,
    HoldExpired,
    ReplicaReported,
    Settled,
    StandaloneUse,
    StorageHeld,
    TrainingFinished,
    UsageEvent,
    decode_event,
)
from tokenyard.metering.stream import FIELD
from tokenyard_billing.periods import HOUR_MS
from tokenyard_billing.tables import MODEL_LENGTH, PRICE_LENGTH, REPLICA_LENGTH

MAX_TOKENS = 10**12  # far above any context; keeps every sum within 64 bits
MAX_MS = 253_402_300_800_000  # the year 10000
MAX_WEIGHT = 2**31
MAX_MONTHS = 10**9  # of a gigabyte each
MAX_BUDGETS = 64  # a request has seven at most
_ID_LENGTH = 96
_HOUR_LENGTH = 12  # what a charge key adds to an adapter
_MONTH_LENGTH = 20  # and to an organization
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

_TEXTS_OF = {AdapterHosted: _TEXTS[:-1], StorageHeld: (("organization", _ID_LENGTH - _MONTH_LENGTH),)}
"""Those that must be there in what claims no price, or is of nobody but an organization."""


class Malformed(ValueError):
    """The entry can never be taken in; the message says why."""


def read_event(fields: Mapping[bytes, bytes], bucket: int) -> UsageEvent:
    """Return the event of one stream entry; `Malformed` is raised where it is not one of ours, and for nothing else."""
    try:
        event = decode_event(fields[FIELD])
    except KeyError:
        raise Malformed("the entry has no event") from None
    except (ValueError, RecursionError) as error:  # also of text that is no UTF-8, and of what is nested too deep
        raise Malformed(str(error)) from error
    if problem := _problem(event, bucket):
        raise Malformed(problem)
    return event


def _problem(event: UsageEvent, bucket: int) -> str | None:
    """Return what is wrong, or None. It runs for every event, so it is plain loops."""
    if isinstance(event, AdapterHosted):
        bad_adapter = _bad_text("adapter", event.adapter, _ID_LENGTH - _HOUR_LENGTH)
        return _bad_hour(event) or bad_adapter or _bad_source(event, bucket)
    if isinstance(event, StorageHeld):
        return _bad_hour(event) or _bad_month(event) or _bad_source(event, bucket)
    if isinstance(event, TrainingFinished):
        source: MeterClaims | TrainingFinished = event
        counts: tuple[str, ...] = ("trained_tokens",)
        counted: TrainingFinished | TokenUsage = event
        own = _bad_text("job", event.job, _ID_LENGTH)
    else:
        source = event.claims
        counted = TokenUsage(0, 0) if isinstance(event, HoldExpired) else event.usage
        counts = ("prompt_tokens", "completion_tokens", "cached_tokens")
        own = _bad_report(event)
        if counted.cached_tokens > counted.prompt_tokens:
            return "more cached tokens than prompt tokens"
    for name in counts:
        if not 0 <= getattr(counted, name) <= MAX_TOKENS:
            return f"{name} is {getattr(counted, name)}"
    return own or _bad_source(source, bucket)


def _bad_report(event: Settled | ReplicaReported | HoldExpired) -> str | None:
    claims = event.claims
    match event:
        case Settled():
            name, at_ms = "settled_at_ms", event.settled_at_ms
        case ReplicaReported():
            name, at_ms = "reported_at_ms", event.reported_at_ms
            if len(event.replica) > REPLICA_LENGTH or "\x00" in event.replica:
                return "replica is too long, or holds a zero byte"
        case HoldExpired():
            name, at_ms = "expired_at_ms", event.expired_at_ms
    if not 0 < at_ms < MAX_MS:
        return f"{name} is {at_ms}"
    if not 0 < claims.weight <= MAX_WEIGHT:
        return f"weight is {claims.weight}"
    for name, text, length in (
        ("server", claims.server, REPLICA_LENGTH),
        ("end_user", claims.end_user, MAX_END_USER_CHARS),
        ("tier", claims.tier, MAX_TIER_CHARS),
    ):
        if len(text) > length or "\x00" in text:
            return f"{name} is too long, or holds a zero byte"
    return _bad_attempt(claims.attempt) or _bad_text("endpoint", claims.endpoint, _ENDPOINT_LENGTH)


def _bad_hour(event: AdapterHosted | StorageHeld) -> str | None:
    if event.admitted_at_ms % HOUR_MS:
        return f"no hour begins at {event.admitted_at_ms}"
    if event.price or event.budgets:
        return "it claims a price or budgets, of which it has none"
    return None


def _bad_month(event: StorageHeld) -> str | None:
    if not 0 < event.number <= MAX_MONTHS:
        return f"number is {event.number}"
    if (event.model, event.base_model, event.project, event.key) != (STORAGE, STORAGE, "", ""):
        return "what is stored is of no model, project or key"
    return None


def _bad_source(source: MeterClaims | StandaloneUse, bucket: int) -> str | None:
    for name, length in _TEXTS_OF.get(type(source), _TEXTS):
        if found := _bad_text(name, getattr(source, name), length):
            return found
    if len(source.budgets) > MAX_BUDGETS:
        return f"{len(source.budgets)} budgets"
    for budget in source.budgets:
        if found := _bad_text("budgets", budget, _BUDGET_LENGTH):
            return found
    if not 0 < source.admitted_at_ms < MAX_MS:
        return f"admitted_at_ms is {source.admitted_at_ms}"
    if bucket_of(source.organization) != bucket:
        return f"organization {source.organization} does not live in bucket {bucket}"
    return None


def _bad_attempt(attempt: AttemptId) -> str | None:
    if found := _bad_text("attempt", attempt, _ID_LENGTH):  # first: Python reads no number of thousands of digits
        return found
    request, _, number = attempt.rpartition(".")
    if not request or not (number.isascii() and number.isdigit()) or int(number) < 1:
        return f"{attempt!r} is not an attempt's id"
    return None


def _bad_text(name: str, value: str, length: int) -> str | None:
    if 0 < len(value) <= length and "\x00" not in value:
        return None
    return f"{name} is empty, too long, or holds a zero byte"
