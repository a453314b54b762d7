"""Budgets: what a request must be held on, be it a wallet or a month's spending limit. Their names, and their state."""

from collections.abc import Collection
from datetime import UTC, datetime

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Principal


class BudgetState(msgspec.Struct, frozen=True):
    """A budget as SQL knows it: nano-dollars that may still be spent, and the version of that figure."""

    ledger: NanoDollars
    version: int


class BudgetUpdate(msgspec.Struct, frozen=True):
    """What changes on one live budget; of two updates the one with the newer version of `state` wins.

    `state` None leaves its ledger figure. The charges `charge_keys` are in SQL now, so they are no longer pending.
    `create` makes the budget where Redis has none such.
    """

    name: str
    state: BudgetState | None
    charge_keys: Collection[str] = ()
    create: bool = False


def wallet(organization: OrganizationId) -> str:
    """Return the name of the organization's prepaid balance."""
    return f"wallet:{organization}"


def monthly(scope: str, at_ms: int) -> str:
    """Return the name of a month's limit of `scope` (an organization, project or key id).

    `at_ms` is unix milliseconds; the month is counted in UTC.
    """
    return f"month:{scope}:{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m}"


def budgets_of(principal: Principal, at_ms: int) -> tuple[str, ...]:
    """Return every budget that a request of `principal` must be held on: the wallet, and each monthly limit."""
    limited = (scope.id for scope in principal.limits if scope.limits.monthly_spend is not None)
    return (wallet(principal.organization), *(monthly(scope, at_ms) for scope in limited))
