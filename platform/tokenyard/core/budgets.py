"""Budgets: what a request must be held on, be it a wallet or a month's spending limit. Their names, and their state."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars


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


def wallet(organization: OrganizationId) -> str:
    """Return the name of the organization's prepaid balance."""
    return f"wallet:{organization}"


def monthly(scope: str, at_ms: int) -> str:
    """Return the name of a month's limit of `scope` (an organization, project or key id).

    `at_ms` is unix milliseconds; the month is counted in UTC.
    """
    return f"month:{scope}:{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m}"


def budgets_of(organization: OrganizationId, monthly_limits: Mapping[str, NanoDollars], at_ms: int) -> list[Budget]:
    """Return what spending must be held on: the wallet, and the month of each scope that has a limit, by its id."""
    months = (Budget(monthly(scope, at_ms), limit) for scope, limit in monthly_limits.items())
    return [Budget(wallet(organization), NanoDollars(0)), *months]
