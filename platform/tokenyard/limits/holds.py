"""One hold: what a request took, in the form in which Redis keeps it."""

from functools import lru_cache

import msgspec

from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.ids import OrganizationId, RequestId, request_of
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import ScopedLimits
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.scripts import Argument

# The scripts add amounts as 64-bit integers; this leaves room for sums of them.
MAX_AMOUNT = 2**60

_ENCODER = msgspec.json.Encoder()
# By number, from 1: the scripts know limits by their numbers.
_LIMITS = (
    ("rpm", "requests_per_minute"),
    ("tpm", "tokens_per_minute"),
    ("rpd", "requests_per_day"),
    ("tpd", "tokens_per_day"),
    ("slots", "concurrency"),
)


class Limit(msgspec.Struct, frozen=True):
    """One figure that a request must stay under; `what` is rpm, tpm, rpd, tpd or slots."""

    scope: str
    id: str
    what: str
    amount: int


class CountedScope(msgspec.Struct, frozen=True):
    """A key, project or organization that has limits, as the scripts take it; `amounts` are by number from 0."""

    scope: str
    id: str
    amounts: tuple[int | None, ...]
    mark: str
    """id/limits, as a hold's record has it."""
    arguments: tuple[Argument, ...]

    def limit(self, number: int) -> Limit:
        """Return the limit that the scripts call `number`."""
        amount = self.amounts[number - 1]
        assert amount is not None, f"{self.id} has no limit {number}"
        return Limit(self.scope, self.id, _LIMITS[number - 1][0], amount)


class Hold(msgspec.Struct, frozen=True):
    """What one request took. `key` is the request's id, or a job's. Lists are separated by spaces."""

    organization: OrganizationId
    key: str
    admitted_at_ms: int
    amount: NanoDollars
    tokens: int
    claims: bytes
    budgets: str
    scopes: str

    def record(self) -> tuple[Argument, ...]:
        """Return the hold as `renew.lua` takes it."""
        return (
            *(self.key, self.admitted_at_ms, self.amount, self.tokens),
            *(self.claims, self.budgets, self.scopes),
        )


class HoldSettlement(msgspec.Struct, frozen=True):
    """What ends one hold: `event` is the encoded `Settled`, `tokens` what the request really used.

    `tokens` None: only the ledger will know. `cost` is then all that was held.
    """

    organization: OrganizationId
    key: str
    cost: NanoDollars
    tokens: int | None
    event: bytes
    budgets: str

    def arguments(self) -> tuple[Argument, ...]:
        """Return it as `settle.lua` takes it."""
        return ("", self.key, self.cost, "" if self.tokens is None else self.tokens, self.event, self.budgets)


def limits_of(request: AdmissionRequest) -> tuple[CountedScope, ...]:
    """Return every scope that has a limit, from the narrowest to the widest."""
    return tuple(counted for scope in request.principal.limits if (counted := _counted(scope)) is not None)


@lru_cache(maxsize=10_000)
def _counted(scope: ScopedLimits) -> CountedScope | None:
    amounts = tuple(getattr(scope.limits, field) for _, field in _LIMITS)
    numbers = "".join(str(number) for number, amount in enumerate(amounts, 1) if amount is not None)
    if not numbers:
        return None
    arguments = (scope.id, *("" if amount is None else amount for amount in amounts))
    return CountedScope(scope.scope, scope.id, amounts, f"{scope.id}/{numbers}", arguments)


def hold_of(request: AdmissionRequest, claims: MeterClaims, limits: tuple[CountedScope, ...]) -> Hold:
    """Return what `request` takes when it is admitted with `claims`."""
    return Hold(
        organization=claims.organization,
        key=key_of(claims),
        admitted_at_ms=claims.admitted_at_ms,
        amount=checked_amount(request.amount),
        tokens=request.tokens,
        claims=_ENCODER.encode(claims),
        budgets=" ".join(budget.name for budget in request.budgets),
        scopes=" ".join(scope.mark for scope in limits),
    )


def admit_arguments(
    request: AdmissionRequest, hold: Hold, limits: tuple[CountedScope, ...], *, lease_ms: int, now_ms: int | None = None
) -> list[Argument]:
    """Return what `admit.lua` takes; `now_ms` replaces Redis' own clock."""
    arguments: list[Argument] = ["" if now_ms is None else now_ms, hold.key]
    arguments += [request.principal.organization, request.principal.revision, lease_ms]
    arguments += [hold.amount, hold.tokens, hold.claims]
    arguments += [hold.budgets, " ".join(str(budget.limit) for budget in request.budgets), hold.scopes]
    for scope in limits:
        arguments += scope.arguments
    return arguments


def key_of(claims: MeterClaims) -> RequestId:
    """Return what a request's hold, charge and settlement are known by."""
    return request_of(claims.attempt)


def checked_amount(amount: int) -> NanoDollars:
    """Return `amount` where the scripts can add it exactly: from 0 to a thousand million dollars, else ValueError."""
    if not 0 <= amount <= MAX_AMOUNT:
        raise ValueError(f"{amount} nano-dollars is not an amount that can be held")
    return NanoDollars(amount)
