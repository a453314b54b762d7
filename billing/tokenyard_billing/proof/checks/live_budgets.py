"""Live budgets: their ledger figures are SQL's, and what is pending on each is the sum of its charges (I6).

Right for busy budgets too. SQL commits first, so Redis never knows a version that SQL, asked later, does not; and it
never lacks one that SQL had, unless the outbox still has its message.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import select, tuple_

from tokenyard.core.budgets import BudgetKey, BudgetState, LiveBudget, month_name, scope_and_month, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import Database
from tokenyard.storage.redis import RedisRun
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.ports import LiveBudgetReader
from tokenyard_billing.proof.checks.comparison import broken, noted
from tokenyard_billing.proof.checks.messages import changes_on_their_way
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Balance, Spending

_NEVER_USED = BudgetState(NanoDollars(0), 0)


class LiveBudgetCheck:
    def __init__(self, database: Database, reader: LiveBudgetReader, run: RedisRun) -> None:
        self._database = database
        self._reader = reader
        self._run = run

    async def look(self, part: Sequence[LiveBudget]) -> list[tuple[BudgetKey, Difference]]:
        """Return what is wrong with budgets that were just read from Redis."""
        states = await self._states([budget.key for budget in part if budget.ledger is not None])
        found = [(budget.key, difference) for budget in part for difference in _wrong(budget, states.get(budget.key))]
        behind = {
            budget.key: states[budget.key].version
            for budget in part
            if budget.key in states and budget.version < states[budget.key].version
        }
        return found + (await self._left_behind(behind) if behind else [])

    async def _left_behind(self, versions: Mapping[BudgetKey, int]) -> list[tuple[BudgetKey, Difference]]:
        """Return the budgets that do not get to their `versions`: Redis lacks them, and no message brings them."""
        stuck = set(versions)
        async for change in changes_on_their_way(self._database, self._run.id):
            stuck.difference_update(BudgetKey(bucket_of(change.organization), name) for name in change.updates())
        return [
            (budget.key, broken("live_budget_behind", budget.key.name, _versions(budget, versions[budget.key])))
            async for part in self._reader.budgets(stuck)
            for budget in part
            if budget.ledger is not None and budget.version < versions[budget.key]
        ]

    async def _states(self, keys: Iterable[BudgetKey]) -> dict[BudgetKey, BudgetState]:
        """Return the budgets that SQL has; of one bucket's scope and month there is one."""
        names = {key.name for key in keys}
        months = {found for name in names if (found := scope_and_month(name))}
        owners = {name.removeprefix(wallet(OrganizationId(""))) for name in names}
        wallets = select(Balance.organization, Balance.amount, Balance.version).where(
            Balance.account == AccountName.WALLET, Balance.organization.in_(owners)
        )
        spending = select(
            Spending.organization, Spending.scope, Spending.month, -Spending.spent - Spending.reserved, Spending.version
        ).where(tuple_(Spending.scope, Spending.month).in_(months))
        states: dict[BudgetKey, BudgetState] = {}
        async with self._database.reading() as session:
            for organization, amount, version in await session.execute(wallets):
                owner = OrganizationId(organization)
                key = BudgetKey(bucket_of(owner), wallet(owner))
                states[key] = BudgetState(NanoDollars(amount), version)
            for organization, scope, month, left, version in await session.execute(spending):
                key = BudgetKey(bucket_of(OrganizationId(organization)), month_name(scope, month))
                states[key] = BudgetState(NanoDollars(left), version)
        return states


def _wrong(budget: LiveBudget, state: BudgetState | None) -> Iterator[Difference]:
    known, name = state or _NEVER_USED, budget.key.name
    if budget.ledger is not None and budget.version > known.version:
        yield broken("live_budget_ahead", name, _versions(budget, known.version))
    elif budget.ledger is not None and budget.version == known.version and budget.ledger != known.ledger:
        detail = f"version {known.version}: SQL {known.ledger}, Redis {budget.ledger}"
        yield broken("live_budget_differs", name, detail)
    if budget.charges is None:
        yield noted("pending_not_read", name, "too many charges are pending to look at each")
    elif (total := sum(budget.charges.values())) != budget.pending:
        yield broken("pending_not_sum", name, f"pending {budget.pending}, its charges {total}")


def _versions(budget: LiveBudget, wanted: int) -> str:
    return f"Redis has version {budget.version}, SQL {wanted}"
