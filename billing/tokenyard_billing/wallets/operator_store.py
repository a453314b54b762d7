"""Balances across organizations."""

from sqlalchemy import case, func, select

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.tables import Balance
from tokenyard_billing.wallets.store import WalletBalance


class WalletOperatorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def balances(self, after: str | None, limit: int) -> list[WalletBalance]:
        """Return at most `limit` balances by organization id; who never had credit or usage is not among them."""
        available, reserved = (
            func.sum(case((Balance.account == name, Balance.amount), else_=0))
            for name in (AccountName.WALLET, AccountName.RESERVED)
        )
        query = (
            select(Balance.organization, available, reserved)
            .where(Balance.organization > (after or ""))
            .group_by(Balance.organization)
            .order_by(Balance.organization)
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [
                WalletBalance(OrganizationId(organization), NanoDollars(int(left)), NanoDollars(int(aside)))
                for organization, left, aside in await session.execute(query)
            ]
