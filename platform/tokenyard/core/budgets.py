"""Budgets: what a request must be held on, be it a wallet or a month's spending limit. Their names, and their state."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from tokenyard.core.clock import HONEST_MS
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars

_HOUR_MS = 3_600_000


class Budget(msgspec.Struct, frozen=True):
    """A budget that a request is held on: `limit` + its ledger figure must cover what is pending and held.

    A wallet's ledger figure is its balance and its limit 0; a month's is what was spent and reserved, below 0. So a
    changed limit needs no word to Redis: it comes with the next request.
    """

    name: str
    limit: NanoDollars


class BudgetState(msgspec.Struct, frozen=True):
    """A budget's ledger figure as SQL knows it, in nano-dollars, and the version of that figure."""

    ledger: NanoDollars
    version: int


class BudgetUpdate(msgspec.Struct, frozen=True):
    """What changes on one live budget; of two updates the one with the newer version of `state` wins.

    `state` None leaves its ledger figure. The charges `charge_keys` are in SQL now, so they are no longer pending.
    `create` makes the budget where Redis has none such; without a state, it is then still missing for admission.
    """

    name: str
    state: BudgetState | None
    charge_keys: Collection[str] = ()
    create: bool = False


ALERT_PERCENTS = (50, 80, 100)
"""At which use of a budget an organization is told, where it states nothing else."""


class AlertRules(msgspec.Struct, frozen=True):
    """At which use of its budgets an organization is told, in percent, and the monthly limits of scopes by their id."""

    percents: tuple[int, ...]
    monthly_limits: Mapping[str, NanoDollars]


class BudgetKey(NamedTuple):
    """Where a live budget stands."""

    bucket: int
    name: str


class LiveBudget(msgspec.Struct, frozen=True):
    """A budget as it stood in Redis in one moment, in nano-dollars.

    `ledger` None: only known by name, and loaded when it is asked for. `charges` are the pending ones by charge key;
    None: too many to be read.
    """

    key: BudgetKey
    ledger: int | None
    version: int
    pending: int
    held: int
    charges: Mapping[str, int] | None


class LiveHold(msgspec.Struct, frozen=True):
    """A hold as it stands in Redis; `request` is a request's id or a job's."""

    request: str
    lease_end_ms: int
    amount: int
    budgets: Sequence[str]


class BucketHolds(msgspec.Struct, frozen=True):
    """A bucket's holds in one moment of Redis time, and what its budgets say is held of them.

    `holds` None: too many to be read.
    """

    now_ms: int
    holds: Sequence[LiveHold] | None
    held: Mapping[str, int]


def wallet(organization: OrganizationId) -> str:
    """Return the name of the organization's prepaid balance."""
    return f"wallet:{organization}"


def monthly(scope: str, at_ms: int) -> str:
    """Return the name of a month's limit of `scope` (an organization, project or key id).

    `at_ms` is unix milliseconds; the month is counted in UTC.
    """
    return month_name(scope, _month(at_ms // _HOUR_MS))


@lru_cache(maxsize=64)
def _month(hour: int) -> str:
    return f"{datetime.fromtimestamp(hour * _HOUR_MS / 1000, UTC):%Y-%m}"


def month_name(scope: str, month: str) -> str:
    """Return the name of the limit of `scope` in `month` (YYYY-MM, UTC)."""
    return f"month:{scope}:{month}"


def scope_and_month(name: str) -> tuple[str, str] | None:
    """Return what `month_name` made `name` of; None where it is another budget's name."""
    kind, _, rest = name.partition(":")
    scope, _, month = rest.rpartition(":")
    return (scope, month) if kind == "month" and scope and month else None


def budgets_of(organization: OrganizationId, monthly_limits: Mapping[str, NanoDollars], at_ms: int) -> Sequence[Budget]:
    """Return what spending must be held on: the wallet, and the month of each scope that has a limit, by its id.

    Around a month's turn it is both months: the caller's clock says `at_ms`, another one dates what is charged.
    """
    months = tuple({_month((at_ms + near_ms) // _HOUR_MS): None for near_ms in (-HONEST_MS, HONEST_MS)})
    return _budgets(organization, tuple(monthly_limits.items()), months)


@lru_cache(maxsize=10_000)
def _budgets(
    organization: OrganizationId, limits: tuple[tuple[str, NanoDollars], ...], months: tuple[str, ...]
) -> Sequence[Budget]:
    spent = (Budget(month_name(scope, month), limit) for scope, limit in limits for month in months)
    return (Budget(wallet(organization), NanoDollars(0)), *spent)
