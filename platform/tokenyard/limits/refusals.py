"""Turns a refusal of the admit script into the error a user sees, in OpenAI's words."""

from collections.abc import Sequence
from typing import Any

from tokenyard.core.admission import AdmissionRequest, RateHeaders, RateWindow, duration
from tokenyard.core.budgets import Budget
from tokenyard.core.errors import BudgetInUse, Conflict, QuotaExceeded, RateLimited, TokenyardError, Unavailable
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars, to_dollars
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.holds import CountedScope, Limit, key_of

# The first word of a reply.
OK, MISSING, SETTLED, OUTDATED = b"ok", b"missing", b"settled", b"outdated"

RETRY_AFTER_S = 2.0
IN_USE_RETRY_S = 1
_NEVER = -1
_NAMES = {
    "rpm": "requests per min (RPM)",
    "tpm": "tokens per min (TPM)",
    "rpd": "requests per day (RPD)",
    "tpd": "tokens per day (TPD)",
    "slots": "concurrent requests",
}


def rates(numbers: Sequence[int]) -> RateHeaders:
    """Read the six numbers at the end of a reply: limit, remaining and reset of requests, then of tokens."""
    requests, tokens = (_window(*numbers[at : at + 3]) for at in (0, 3))
    return RateHeaders(requests, tokens)


def _window(limit: int, remaining: int, reset_ms: int) -> RateWindow | None:
    return None if limit < 0 else RateWindow(limit, remaining, reset_ms)


def refusal(reply: Sequence[Any], request: AdmissionRequest, limits: Sequence[CountedScope]) -> TokenyardError:
    """Return the error for any reply of `admit.lua` that is not `ok`."""
    match reply:
        case [b"rate", place, number, used, wait_ms, *numbers]:
            return _rate_limited(limits[place].limit(number), used, wait_ms, request.tokens, rates(numbers))
        case [b"settled"]:
            return Conflict(f"Request {key_of(request.claims)} has already ended.")
    claims = request.claims
    return budget_refusal(reply, request.amount, request.budgets, claims.organization, claims.project)


def budget_refusal(
    reply: Sequence[Any],
    amount: NanoDollars,
    budgets: Sequence[Budget],
    organization: OrganizationId,
    project: ProjectId | None = None,
) -> TokenyardError:
    """Return the error for a reply that speaks of budgets: one does not cover `amount`, or they are not loaded."""
    match reply:
        case [b"budget", place, value]:
            budget, figures = budgets[place], BudgetFigures.unpacked(value)
            whose, code = _budget_owner(budget.name, organization, project)
            unspent, in_use = budget.limit + figures.ledger, figures.pending + figures.held
            return (
                _in_use(whose, amount, unspent, in_use) if unspent >= amount else _spent(whose, code, amount, unspent)
            )
        case [b"not_ready"] | [b"missing", *_]:
            return not_available()
    raise AssertionError(f"unknown reply of the admit script: {reply!r}")


def not_available() -> Unavailable:
    """Return the error for when limits and budgets cannot be checked: nothing is served unchecked."""
    return Unavailable("Usage limits cannot be checked right now. Please try again.", retry_after_s=RETRY_AFTER_S)


def _rate_limited(limit: Limit, used: int, wait_ms: int, tokens: int, headers: RateHeaders) -> RateLimited:
    of_tokens = limit.what in ("tpm", "tpd")
    name, requested = _NAMES[limit.what], tokens if of_tokens else 1
    figures = f"Limit {limit.amount}, Used {used}, Requested {requested}."
    where = f"for {limit.scope} {limit.id} on {name}: {figures}"
    never = wait_ms == _NEVER
    if never:
        message = f"Request too large {where} A single request can never exceed the limit."
    else:
        message = f"Rate limit reached {where} Please try again in {duration(wait_ms)}."
    error = RateLimited(message, retry_after_s=None if never else wait_ms / 1000, headers=headers.headers())
    error.type = "tokens" if of_tokens else "requests"
    error.room = limit.amount - used if of_tokens else None
    return error


def _spent(whose: str, code: str, amount: NanoDollars, unspent: int) -> QuotaExceeded:
    error = QuotaExceeded(
        f"{whose} does not cover this request: it may cost up to ${to_dollars(amount)}, "
        f"and ${to_dollars(unspent)} is available.",
        code=code,
    )
    error.room = unspent
    return error


def _in_use(whose: str, amount: NanoDollars, unspent: int, in_use: int) -> BudgetInUse:
    error = BudgetInUse(
        f"{whose} does not cover this request at the moment: it may cost up to ${to_dollars(amount)}, and of "
        f"${to_dollars(unspent)} other requests that are not charged yet may cost up to ${to_dollars(in_use)}. "
        "Please try again when they have ended.",
        retry_after_s=IN_USE_RETRY_S,
    )
    error.room = unspent - in_use
    return error


def _budget_owner(budget: str, organization: OrganizationId, project: ProjectId | None) -> tuple[str, str]:
    kind, _, rest = budget.partition(":")
    if kind == "wallet":
        return f"The credit balance of organization {organization}", "credit_balance_exhausted"
    scope = rest.partition(":")[0]
    if scope == organization:
        return f"The monthly spend limit of organization {scope}", "organization_spend_limit_exceeded"
    if scope == project or scope.startswith("proj_"):
        return f"The monthly spend limit of project {scope}", "project_spend_limit_exceeded"
    return "The monthly spend limit of this API key", "insufficient_quota"
