"""An open invoice ends once: paid, void or written off, each posted to its own account."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, MARCH_MS, balance, journal_sum, rows
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.invoice_tables import Settlement
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.periods import DAY_MS

APRIL_MS = MARCH_MS + 31 * DAY_MS
INVOICE = "inv_acme_2026-03"
OPERATOR = ApiKeyId("key_operator")


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed, and 700 are due."""
    books = InvoiceBooks(database, redis)
    await books.grant(300)
    await books.use(1_000)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.close()
    return books


@pytest.fixture
def settlements(books: InvoiceBooks) -> InvoiceSettlements:
    return books.settling()


def pay(settlements: InvoiceSettlements, key: str = "once") -> Awaitable[None]:
    return settlements.pay(INVOICE, reference="bank 17", idempotency_key=key, actor=OPERATOR)


WAYS: dict[str, Callable[[InvoiceSettlements], Awaitable[None]]] = {
    "paid": pay,
    "void": lambda settlements: settlements.void(INVOICE, reason="by mistake", actor=OPERATOR),
    "uncollectible": lambda settlements: settlements.write_off(INVOICE, reason="bankrupt", actor=OPERATOR),
}
ACCOUNTS = {"paid": "cash", "void": "adjustments", "uncollectible": "written_off"}


@pytest.mark.parametrize("state", WAYS)
async def test_what_was_due_goes_to_the_account_of_how_it_ended(
    books: InvoiceBooks, settlements: InvoiceSettlements, state: str
) -> None:
    await WAYS[state](settlements)
    assert (await books.invoice("2026-03")).state == state
    names = ("wallet", "receivable", *ACCOUNTS.values())
    accounts = {name: await balance(books.database, ACME, name) for name in names}
    assert accounts == dict.fromkeys(names, 0) | {ACCOUNTS[state]: -700}
    assert await journal_sum(books.database) == 0
    audited = (await rows(books.database, AuditRow))[-1]
    assert (audited.action, audited.actor, audited.resource) == (f"invoice.{state}", OPERATOR, INVOICE)
    assert audited.details["amount"] == 700
    assert audited.before == {"state": "open"}


@pytest.mark.parametrize("state", WAYS)
async def test_it_ends_once(books: InvoiceBooks, settlements: InvoiceSettlements, state: str) -> None:
    await WAYS[state](settlements)
    with pytest.raises(Conflict, match=f"is {state}"):
        await pay(settlements, "another payment")
    for then in WAYS.keys() - {"paid"}:
        with pytest.raises(Conflict, match=f"is {state}"):
            await WAYS[then](settlements)
    assert len(await rows(books.database, Settlement)) == 1
    assert await balance(books.database, ACME, "receivable") == 0


async def test_a_payment_that_is_repeated_is_noted_once(books: InvoiceBooks, settlements: InvoiceSettlements) -> None:
    await asyncio.gather(*(pay(settlements) for _ in range(3)))
    assert await balance(books.database, ACME, "cash") == -700
    [noted] = await rows(books.database, Settlement)
    assert (noted.state, noted.amount, noted.note, noted.idempotency_key) == ("paid", 700, "bank 17", "once")


async def test_a_draft_and_one_that_is_not_there_cannot_end(
    books: InvoiceBooks, settlements: InvoiceSettlements
) -> None:
    await books.use(100, at_ms=APRIL_MS)
    await books.draft()
    with pytest.raises(Conflict, match="is draft"):
        await settlements.void("inv_acme_2026-04", reason="x", actor=OPERATOR)
    with pytest.raises(NotFound):
        await settlements.void("inv_none", reason="x", actor=OPERATOR)


async def test_a_void_invoice_frees_neither_its_usage_nor_its_credit(
    books: InvoiceBooks, settlements: InvoiceSettlements
) -> None:
    await WAYS["void"](settlements)
    await books.use(100, at_ms=APRIL_MS)
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 300, 700), ("2026-04", 100, 0, 100)]
    assert await balance(books.database, ACME) == -100
