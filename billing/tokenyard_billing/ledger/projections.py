"""What each scope spent in a month, kept in the transaction that spends."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage import bulk
from tokenyard_billing.periods import month_of
from tokenyard_billing.tables import Spending


class SpendingKey(NamedTuple):
    """A month's spending of one scope: an organization, project or key id."""

    organization: str
    scope: str
    month: str


class SpendingState(NamedTuple):
    """`spent` and `reserved` count against a monthly limit; `version` grows with each change."""

    spent: int
    reserved: int
    version: int


class SpendingChanges:
    def __init__(self) -> None:
        self._changes: dict[SpendingKey, list[int]] = {}

    def add(self, scopes: tuple[str, str, str], at_ms: int, *, spent: int = 0, reserved: int = 0) -> None:
        """Count amounts for `scopes` (organization, project, key; "" is none) in the month of `at_ms`."""
        month = month_of(at_ms)
        for scope in filter(None, scopes):
            sums = self._changes.setdefault(SpendingKey(scopes[0], scope, month), [0, 0])
            sums[0] += spent
            sums[1] += reserved

    async def write(self, session: AsyncSession) -> None:
        rows = [
            {**key._asdict(), "spent": spent, "reserved": reserved, "version": 1}
            for key, (spent, reserved) in sorted(self._changes.items())
            if spent or reserved
        ]
        await bulk.add_up(session, Spending, rows, add=("spent", "reserved", "version"))


async def load_spending(session: AsyncSession, keys: Iterable[SpendingKey]) -> dict[SpendingKey, SpendingState]:
    wanted = list(keys)
    if not wanted:
        return {}
    columns = (Spending.organization, Spending.scope, Spending.month)
    query = select(*columns, Spending.spent, Spending.reserved, Spending.version).where(tuple_(*columns).in_(wanted))
    return {
        SpendingKey(organization, scope, month): SpendingState(*state)
        for organization, scope, month, *state in await session.execute(query)
    }
