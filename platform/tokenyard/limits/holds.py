"""One hold: what a request took, in the form in which Redis keeps it."""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import msgspec

from tokenyard.core import redis_keys
from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.budgets import Budget
from tokenyard.core.ids import OrganizationId, RequestId, request_of
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import ScopedLimits
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.budget_figures import amount_of, packed, packed_amount
from tokenyard.limits.scripts import Argument

# What SQL's 64-bit integers take; this leaves room for sums of them.
MAX_AMOUNT = 2**60

SETTLED = b"settled"
"""The value of a request that was settled (`lua/requests.lua`)."""

_ENCODER = msgspec.json.Encoder()
# By number, from 1: the scripts know limits by their numbers.
_LIMITS = (
    ("rpm", "requests_per_minute"),
    ("tpm", "tokens_per_minute"),
    ("rpd", "requests_per_day"),
    ("tpd", "tokens_per_day"),
    ("slots", "concurrency"),
)
_LIMITS_PACKED, _NUMBER, _HOLD = struct.Struct(">5d"), struct.Struct(">d"), struct.Struct(">4d")


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
    packed: bytes
    """`amounts` as the scripts take them."""

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
    claims: MeterClaims | None
    budgets: str
    scopes: str

    def admitted(self, claims: MeterClaims) -> Self:
        """Return it as it stands once Redis has let the request in, with `claims` that say when."""
        return msgspec.structs.replace(self, admitted_at_ms=claims.admitted_at_ms, claims=claims)

    def value(self) -> bytes:
        """Return it as Redis keeps it (`lua/requests.lua`)."""
        return _NUMBER.pack(self.admitted_at_ms) + self.record()

    def record(self) -> bytes:
        """Return it without the moment of admission, which only Redis knows."""
        lists = f"{self.budgets}\n{self.scopes}\n".encode()
        claims = b"" if self.claims is None else _ENCODER.encode(self.claims)
        return packed_amount(self.amount) + _NUMBER.pack(self.tokens) + lists + claims


class StoredHold(msgspec.Struct, frozen=True):
    """What was read of a hold from Redis."""

    admitted_at_ms: int
    amount: int
    budgets: Sequence[str]
    claims: bytes

    @classmethod
    def read(cls, value: bytes) -> Self:
        """Read a request's value; raises ValueError where that is no hold."""
        if len(value) < _HOLD.size:
            raise ValueError(f"{value!r} is no hold")
        admitted_at_ms, billions, rest, _ = _HOLD.unpack_from(value)
        budgets, _, claims = value[_HOLD.size :].split(b"\n", 2)
        return cls(int(admitted_at_ms), amount_of(billions, rest), budgets.decode().split(), claims)


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
    scopes: str = ""
    """As the hold has them, where the hold is known."""

    def arguments(self) -> list[Argument]:
        """Return it as `settle.lua` takes it."""
        names = _names(self.organization, self.budgets, self.scopes)
        return [
            *(self.key, packed_amount(self.cost), "" if self.tokens is None else self.tokens, self.event),
            *(self.budgets, self.scopes, len(names.budgets)),
            *(redis_keys.request(names.bucket, self.key), *names.budgets, *names.scopes),
        ]


class _Names(NamedTuple):
    """What the scripts of one caller's requests look at in Redis, by name."""

    bucket: int
    ready: str
    revision: str
    budgets: tuple[str, ...]
    scopes: tuple[str, ...]


@lru_cache(maxsize=10_000)
def _names(organization: OrganizationId, budgets: str, scopes: str) -> _Names:
    bucket = redis_keys.bucket_of(organization)
    return _Names(
        bucket,
        redis_keys.ready(bucket),
        redis_keys.revision(bucket, organization),
        tuple(redis_keys.budget(bucket, name) for name in budgets.split()),
        tuple(redis_keys.windows(bucket, scope) for scope in scopes.split()),
    )


def limits_of(request: AdmissionRequest) -> tuple[CountedScope, ...]:
    """Return every scope that has a limit, from the narrowest to the widest."""
    return tuple(counted for scope in request.principal.limits if (counted := _counted(scope)) is not None)


@lru_cache(maxsize=10_000)
def _counted(scope: ScopedLimits) -> CountedScope | None:
    amounts = tuple(getattr(scope.limits, field) for _, field in _LIMITS)
    if not any(amount is not None for amount in amounts):
        return None
    packed_limits = _LIMITS_PACKED.pack(*(math.inf if amount is None else amount for amount in amounts))
    return CountedScope(scope.scope, scope.id, amounts, packed_limits)


def hold_of(request: AdmissionRequest, claims: MeterClaims, limits: tuple[CountedScope, ...]) -> Hold:
    """Return what `request` takes when it is admitted with `claims`."""
    return Hold(
        organization=claims.organization,
        key=key_of(claims),
        admitted_at_ms=claims.admitted_at_ms,
        amount=checked_amount(request.amount),
        tokens=request.tokens,
        claims=claims,
        budgets=" ".join(budget.name for budget in request.budgets),
        scopes=" ".join(scope.id for scope in limits),
    )


def admit_arguments(
    request: AdmissionRequest, hold: Hold, limits: Sequence[CountedScope], *, lease_ms: int, now_ms: int | None = None
) -> list[Argument]:
    """Return what `admit.lua` takes; `now_ms` replaces Redis' own clock."""
    revision = request.principal.revision
    return hold_arguments(hold, request.budgets, limits, lease_ms=lease_ms, revision=revision, now_ms=now_ms)


def hold_arguments(
    hold: Hold,
    budgets: Sequence[Budget],
    limits: Sequence[CountedScope] = (),
    *,
    lease_ms: int,
    revision: int | None = None,
    now_ms: int | None = None,
) -> list[Argument]:
    """Return what `admit.lua` takes; without a `revision` no caller is compared with its organization's."""
    names = _names(hold.organization, hold.budgets, hold.scopes)
    return [
        *("" if now_ms is None else now_ms, lease_ms, hold.key, hold.record()),
        "" if revision is None else revision,
        _packed_limits(tuple([budget.limit for budget in budgets])),
        b"".join([scope.packed for scope in limits]),
        *(names.ready, redis_keys.request(names.bucket, hold.key), names.revision, *names.scopes, *names.budgets),
    ]


@lru_cache(maxsize=10_000)
def _packed_limits(amounts: tuple[int, ...]) -> bytes:
    return packed(amounts)


def key_of(claims: MeterClaims) -> RequestId:
    """Return what a request's hold, charge and settlement are known by."""
    return request_of(claims.attempt)


def checked_amount(amount: int) -> NanoDollars:
    """Return `amount` where the scripts can add it exactly: from 0 to a thousand million dollars, else ValueError."""
    if not 0 <= amount <= MAX_AMOUNT:
        raise ValueError(f"{amount} nano-dollars is not an amount that can be held")
    return NanoDollars(amount)
