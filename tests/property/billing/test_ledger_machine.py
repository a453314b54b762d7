"""Whatever is posted in whatever order: every transaction sums to 0, and balances are the sums of their entries."""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import func, select

from support.billing.stand import ACME, GLOBEX
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.errors import Conflict
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Base, Database
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.journal import Posting
from tokenyard_billing.tables import Balance, Entry, Transaction

AMOUNTS = st.integers(1, 10**12).map(NanoDollars)
ORGANIZATIONS = st.sampled_from([ACME, GLOBEX])
T = TypeVar("T")


class LedgerMachine(RuleBasedStateMachine):
    """Posts by the templates and corrections only; the model is a dictionary of balances."""

    transactions = Bundle("transactions")
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        import_all_tables()
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._database = Database(f"sqlite+aiosqlite:///{Path(self._folder.name) / 'ledger.db'}")
        self._model: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._postings = 0
        self._run(self._create())

    @rule(target=transactions, organization=ORGANIZATIONS, amount=AMOUNTS)
    def grant(self, organization: OrganizationId, amount: NanoDollars) -> tuple[OrganizationId, str]:
        posting = journal.credit_granted(organization, amount, reference="grant", reason="test", actor="test")
        return organization, self._post(posting)

    @rule(target=transactions, organization=ORGANIZATIONS, amount=AMOUNTS)
    def charge(self, organization: OrganizationId, amount: NanoDollars) -> tuple[OrganizationId, str]:
        return organization, self._post(journal.usage_charged(organization, amount, reference="batch"))

    @rule(target=reservations, organization=ORGANIZATIONS, amount=AMOUNTS)
    def reserve(self, organization: OrganizationId, amount: NanoDollars) -> tuple[OrganizationId, NanoDollars]:
        self._post(journal.money_reserved(organization, amount, reference="job"))
        return organization, amount

    @rule(target=transactions, reservation=consumes(reservations), cost=AMOUNTS)
    def close(self, reservation: tuple[OrganizationId, NanoDollars], cost: NanoDollars) -> tuple[OrganizationId, str]:
        organization, reserved = reservation
        posting = journal.reservation_closed(organization, reserved=reserved, cost=cost, reference="job")
        assert posting is not None
        return organization, self._post(posting)

    @rule(transaction=transactions)
    def correct(self, transaction: tuple[OrganizationId, str]) -> None:
        organization, identity = transaction
        try:
            self._run(self._correct(organization, identity))
        except Conflict:  # corrected before
            return
        self._postings += 1

    @invariant()
    def every_transaction_sums_to_zero(self) -> None:
        query = select(Entry.transaction).group_by(Entry.transaction).having(func.sum(Entry.amount) != 0)
        assert self._run(self._scalars(query)) == []

    @invariant()
    def balances_are_the_sums_of_their_entries(self) -> None:
        rows = self._run(self._scalars(select(Balance)))
        assert {(row.organization, row.account): row.amount for row in rows} == dict(self._model)

    @invariant()
    def nothing_ever_leaves_the_journal(self) -> None:
        assert len(self._run(self._scalars(select(Transaction.id)))) == self._postings

    def teardown(self) -> None:
        self._run(self._database.close())
        self._runner.close()
        self._folder.cleanup()

    def _post(self, posting: Posting) -> str:
        for account, amount in posting.entries:
            self._model[posting.organization, account.value] += amount
        self._postings += 1
        return self._run(self._write(posting))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _create(self) -> None:
        async with self._database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def _write(self, posting: Posting) -> str:
        async with self._database.transaction() as session:
            [identity] = await journal.post(session, [posting], 0)
        return identity

    async def _correct(self, organization: OrganizationId, transaction: str) -> None:
        async with self._database.transaction() as session:
            await journal.correct(session, organization, transaction, reason="wrong", actor="key_1", at_ms=0)
        query = select(Entry).where(Entry.transaction == transaction)
        for entry in await self._scalars(query):
            self._model[organization, entry.account] -= entry.amount

    async def _scalars(self, query: Any) -> list[Any]:
        async with self._database.reading() as session:
            return list(await session.scalars(query))


LedgerMachine.TestCase.settings = hypothesis_settings(max_examples=15, stateful_step_count=15, deadline=None)
TestLedger = LedgerMachine.TestCase
