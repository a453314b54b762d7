"""Budgets as SQL has them: a wallet's balance, or what is left of a monthly limit."""

from collections.abc import Iterable, Mapping

from tokenyard.core.budgets import BudgetState, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.ledger.journal import AccountName, balances
from tokenyard_billing.ledger.projections import SpendingKey, SpendingState, load_spending
from tokenyard_billing.ports import SpendingLimits

_NEVER_SPENT = SpendingState(0, 0, 0)


class SqlBudgets:
    """What admission loads budgets from, and what the live budgets are brought up to."""

    def __init__(self, database: Database, limits: SpendingLimits) -> None:
        self._database = database
        self._limits = limits

    async def load(self, organization: OrganizationId, name: str) -> BudgetState | None:
        """Return the budget called `name`, or None where it has no limit or is no budget of the organization."""
        return (await self.states({organization: [name]}))[organization].get(name)

    async def states(
        self, names: Mapping[OrganizationId, Iterable[str]]
    ) -> dict[OrganizationId, dict[str, BudgetState]]:
        """Return every budget of `names` that there is. A wallet always is: with nothing granted, it is empty."""
        keys = {
            organization: {name: key for name in wanted if (key := _spending_key(organization, name))}
            for organization, wanted in names.items()
        }
        # Limits first: a limit that changes in between is pushed by whoever changed it, with a newer figure.
        limits = {
            organization: await self._limits.monthly(organization) for organization, found in keys.items() if found
        }
        async with self._database.reading() as session:
            wallets = await balances(session, names, AccountName.WALLET)
            spending = await load_spending(session, (key for found in keys.values() for key in found.values()))
        states: dict[OrganizationId, dict[str, BudgetState]] = {}
        for organization, wanted in names.items():
            found = states[organization] = {}
            if wallet(organization) in wanted:
                found[wallet(organization)] = BudgetState(*wallets.get(organization, (NanoDollars(0), 0)))
            for name, key in keys[organization].items():
                limit = limits[organization].get(key.scope)
                if limit is not None:
                    spent, reserved, version = spending.get(key, _NEVER_SPENT)
                    found[name] = BudgetState(NanoDollars(limit - spent - reserved), version)
        return states


def _spending_key(organization: OrganizationId, name: str) -> SpendingKey | None:
    kind, _, rest = name.partition(":")
    scope, _, month = rest.rpartition(":")
    return SpendingKey(organization, scope, month) if kind == "month" and scope and month else None
