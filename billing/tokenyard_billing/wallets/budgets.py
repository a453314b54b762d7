"""Ledger figures of budgets, as SQL has them: a wallet's balance, or below 0 what a month has taken of its limit."""

from collections.abc import Iterable, Mapping

from tokenyard.core.budgets import BudgetState, scope_and_month, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.ledger.journal import AccountName, balances
from tokenyard_billing.ledger.projections import SpendingKey, SpendingState, load_spending

_NEVER_SPENT = SpendingState(0, 0, 0)


class SqlBudgets:
    """What admission loads budgets from, and what the live budgets are brought up to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, organization: OrganizationId, name: str) -> BudgetState:
        """Return the budget called `name`; a name that is none of a budget raises `KeyError`."""
        return (await self.states({organization: [name]}))[organization][name]

    async def states(
        self, names: Mapping[OrganizationId, Iterable[str]]
    ) -> dict[OrganizationId, dict[str, BudgetState]]:
        """Return every budget of `names`; one that was never used stands at 0."""
        months = {
            organization: {name: key for name in wanted if (key := _spending_key(organization, name))}
            for organization, wanted in names.items()
        }
        async with self._database.reading() as session:
            wallets = await balances(session, names, AccountName.WALLET)
            spending = await load_spending(session, (key for found in months.values() for key in found.values()))
        states: dict[OrganizationId, dict[str, BudgetState]] = {}
        for organization, wanted in names.items():
            found = states[organization] = {}
            if wallet(organization) in wanted:
                found[wallet(organization)] = BudgetState(*wallets.get(organization, (NanoDollars(0), 0)))
            for name, key in months[organization].items():
                spent, reserved, version = spending.get(key, _NEVER_SPENT)
                found[name] = BudgetState(NanoDollars(-spent - reserved), version)
        return states


def _spending_key(organization: OrganizationId, name: str) -> SpendingKey | None:
    found = scope_and_month(name)
    return SpendingKey(organization, *found) if found else None
