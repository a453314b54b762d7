"""The books of all organizations together."""

from collections.abc import Mapping

from sqlalchemy import func, select

from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.tables import Balance


class BooksOperatorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def trial_balance(self) -> Mapping[AccountName, NanoDollars]:
        """Return the sum of each account over all organizations; together they are 0."""
        query = select(Balance.account, func.sum(Balance.amount)).group_by(Balance.account)
        async with self._database.reading() as session:
            found = {account: NanoDollars(int(amount)) for account, amount in await session.execute(query)}
        return {name: found.get(name.value, NanoDollars(0)) for name in AccountName}
