"""An issued invoice is charged to the stored method: once, whatever dies in between, and no money vanishes."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from support.billing.stand import ACME, balance, rows
from support.card_payments.account import SLOW, UNVERIFIED
from support.card_payments.books import DOLLARS_7, INVOICE, OPERATOR, PayingBooks
from support.card_payments.server import Fault
from tokenyard.core.money import NanoDollars
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.invoice_tables import Settlement
from tokenyard_billing.tables import Alarm, CreditGrant
from tokenyard_billing.top_ups.buying import PayBy

DECLINED = "pm_card_chargeDeclined"
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


Meanwhile = Callable[[PayingBooks], Awaitable[None]]


async def test_it_is_charged_and_paid(books: PayingBooks) -> None:
    await books.set_up()
    await books.owe()
    await books.pay()
    payment = await books.payment()
    assert (payment.state, payment.amount, payment.settled, payment.credited) == ("succeeded", DOLLARS_7, DOLLARS_7, 0)
    assert (await books.invoice("2026-03")).state == "paid"
    assert books.taken == await books.cash() == DOLLARS_7
    assert await balance(books.database, ACME, "receivable") == 0
    [settlement] = await rows(books.database, Settlement)
    assert (settlement.idempotency_key, settlement.note) == (payment.id, f"stripe {payment.charge}")
    assert "payment.succeeded" in {one.action for one in await rows(books.database, AuditRow)}
    await books.pay()
    assert books.taken == DOLLARS_7
    await books.agree()


async def test_without_a_method_nothing_is_charged(books: PayingBooks) -> None:
    await books.owe()
    await books.pay()
    assert await books.payments() == []
    await books.set_up()
    await books.pay()
    assert books.taken == DOLLARS_7


@SQLITE
@pytest.mark.parametrize("call", ["/payment_intents", "/confirm"])
@pytest.mark.parametrize("fault", Fault)
async def test_a_call_that_goes_wrong_charges_once(books: PayingBooks, call: str, fault: Fault) -> None:
    await books.set_up()
    await books.owe()
    books.stripe.faults.append((call, fault))
    await books.pay()
    assert (await books.payment()).state == "created"
    assert (await books.invoice("2026-03")).state == "open"
    for _ in range(3):
        await books.pay()
    assert (await books.payment()).state == "succeeded"
    assert books.taken == await books.cash() == DOLLARS_7
    await books.agree()


@SQLITE
async def test_a_provider_that_stays_away_is_an_alarm_and_costs_nobody(books: PayingBooks) -> None:
    await books.set_up()
    await books.owe()
    books.stripe.faults += [("/payment_intents", Fault.ERROR)] * 6
    for _ in range(6):
        await books.poll()
    assert {one.kind for one in await rows(books.database, Alarm)} == {"payment_provider_away"}
    await books.poll()
    assert books.taken == await books.cash() == DOLLARS_7


@SQLITE
@pytest.mark.parametrize(
    ("card", "code"),
    [
        (DECLINED, "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_authenticationRequired", "authentication_required"),
    ],
)
async def test_a_declined_card_leaves_the_invoice_open(books: PayingBooks, card: str, code: str) -> None:
    await books.set_up(card)
    await books.owe()
    for _ in range(3):
        await books.pay()
    payment = await books.payment()
    assert (payment.state, payment.failure_code) == ("failed", code)
    assert books.stripe.account.intents[payment.charge or ""]["status"] == "canceled"
    assert (await books.invoice("2026-03")).state == "open"
    assert books.taken == await books.cash() == 0
    await books.agree()


async def test_another_method_is_tried_at_once(books: PayingBooks) -> None:
    await books.set_up(DECLINED)
    await books.owe()
    await books.pay()
    await books.set_up()
    await books.pay()
    assert [one.state for one in await books.payments()] == ["failed", "succeeded"]
    assert books.taken == await books.cash() == DOLLARS_7


@SQLITE
async def test_a_method_that_is_gone_before_it_is_charged_keeps_no_other_from_it(books: PayingBooks) -> None:
    method = await books.set_up()
    await books.owe()
    books.stripe.faults.append(("/confirm", Fault.RESET))
    await books.pay()
    await books.methods.remove(ACME, method, actor=OPERATOR)
    for _ in range(2):
        await books.pay()
    payment = await books.payment()
    assert (payment.state, payment.failure_code) == ("failed", "payment_method_unexpected_state")
    assert books.stripe.account.intents[payment.charge or ""]["status"] == "canceled"
    await books.set_up()
    await books.pay()
    assert books.taken == await books.cash() == DOLLARS_7


@SQLITE
async def test_a_stored_method_that_asks_more_of_its_owner_has_failed(books: PayingBooks) -> None:
    await books.set_up(UNVERIFIED)
    await books.owe()
    await books.pay()
    payment = await books.payment()
    assert (payment.state, payment.failure_code) == ("failed", "authentication_required")
    assert books.stripe.account.intents[payment.charge or ""]["status"] == "canceled"


@SQLITE
async def test_what_stripe_will_not_take_has_failed(books: PayingBooks) -> None:
    await books.set_up()
    await books.owe(DOLLARS_7 // 70)
    await books.pay()
    payment = await books.payment()
    assert (payment.state, payment.failure_code, payment.charge) == ("failed", "amount_too_small", None)


async def test_a_slow_payment_is_followed_to_its_end(books: PayingBooks) -> None:
    await books.set_up(SLOW)
    await books.owe()
    await books.pay()
    payment = await books.payment()
    assert payment.state == "processing"
    assert (await books.invoice("2026-03")).state == "open"
    books.stripe.account.finish(payment.charge or "")
    await books.poll()
    assert (await books.payment()).state == "succeeded"
    assert await books.cash() == DOLLARS_7
    await books.agree()


async def test_a_slow_payment_that_fails(books: PayingBooks) -> None:
    await books.set_up(SLOW)
    await books.owe()
    await books.pay()
    books.stripe.account.finish((await books.payment()).charge or "", well=False)
    await books.tell("payment_intent.payment_failed")
    await books.pay()
    assert (await books.payment()).failure_code == "insufficient_funds"
    assert (await books.invoice("2026-03")).state == "open"
    assert await books.cash() == 0


@SQLITE
@pytest.mark.parametrize("taken", [{"amount_received": 699}, {"currency": "eur"}])
async def test_what_took_another_amount_than_was_asked_is_an_alarm_and_is_not_posted(
    books: PayingBooks, taken: dict[str, object]
) -> None:
    await books.set_up(SLOW)
    await books.owe()
    await books.pay()
    charge = (await books.payment()).charge or ""
    books.stripe.account.finish(charge)
    right = dict(books.stripe.account.intents[charge])
    books.stripe.account.intents[charge] |= taken
    await books.poll()
    assert (await books.payment()).state == "processing"
    [alarm] = await rows(books.database, Alarm)
    assert (alarm.kind, charge in alarm.message) == ("payment_stuck", True)
    assert await books.cash() == 0
    await books.agree()
    books.stripe.account.intents[charge] = right
    await books.poll()
    assert await books.cash() == DOLLARS_7


async def _pay_by_hand(books: PayingBooks) -> None:
    await books.settlements.pay(INVOICE, reference="bank 17", idempotency_key="k", actor=OPERATOR)


async def _void(books: PayingBooks) -> None:
    await books.settlements.void(INVOICE, reason="by mistake", actor=OPERATOR)


async def _write_off(books: PayingBooks) -> None:
    await books.settlements.write_off(INVOICE, reason="bankrupt", actor=OPERATOR)


async def _lower(books: PayingBooks) -> None:
    """Take half of it back by a credit note."""
    await books.correct("cheap", request="req_1")


@pytest.mark.parametrize(
    ("meanwhile", "settled"), [(_pay_by_hand, 0), (_void, 0), (_write_off, 0)], ids=["paid", "void", "written off"]
)
async def test_money_for_an_invoice_that_ended_is_credit(
    books: PayingBooks, meanwhile: Meanwhile, settled: int
) -> None:
    await books.set_up(SLOW)
    await books.owe()
    await books.pay()
    await meanwhile(books)
    before = await books.cash()
    books.stripe.account.finish((await books.payment()).charge or "")
    await books.tell("payment_intent.succeeded")
    await books.pay()
    payment = await books.payment()
    assert (payment.settled, payment.credited) == (settled, DOLLARS_7 - settled)
    assert await books.cash() == before + DOLLARS_7
    assert await balance(books.database, ACME) == DOLLARS_7
    [grant] = await rows(books.database, CreditGrant)
    assert (grant.idempotency_key, grant.amount) == (payment.id, DOLLARS_7)
    assert INVOICE in grant.reason
    await books.agree()


async def test_money_above_what_a_credit_note_left_is_credit(books: PayingBooks) -> None:
    await books.set_up(SLOW)
    await books.spend("req_1", books.dollars_of_output(8))
    await books.owe(0)
    await books.pay()
    assert (await books.payment()).amount == 8 * 10**9
    await _lower(books)
    books.stripe.account.finish((await books.payment()).charge or "")
    await books.poll()
    payment = await books.payment()
    assert (payment.settled, payment.credited) == (4 * 10**9, 4 * 10**9)
    assert (await books.invoice("2026-03")).state == "paid"
    assert await balance(books.database, ACME) == 4 * 10**9
    await books.agree()


@SQLITE
@pytest.mark.parametrize("meanwhile", [_pay_by_hand, _void, _write_off])
async def test_what_ended_before_it_was_confirmed_takes_no_money(books: PayingBooks, meanwhile: Meanwhile) -> None:
    await books.set_up()
    await books.owe()
    books.stripe.faults.append(("/payment_intents", Fault.RESET))
    await books.pay()
    await meanwhile(books)
    await books.pay()
    assert (await books.payment()).state == "cancelled"
    assert books.taken == 0
    await books.agree()


TAMPERING = {
    "UPDATE billing_payments SET amount = amount + 1": {"payment_not_whole"},
    "UPDATE billing_payments SET state = 'failed'": {"payment_not_whole"},
    "UPDATE billing_payments SET settled = settled - 1, credited = credited + 1": {
        *("payment_not_booked", "cash_not_payments")
    },
    "DELETE FROM billing_payments": {"cash_not_payments"},
    "UPDATE billing_settlements SET idempotency_key = 'another'": {"payment_not_booked"},
}


@SQLITE
@pytest.mark.parametrize("tampering", TAMPERING)
async def test_what_was_tampered_with_is_found(books: PayingBooks, tampering: str) -> None:
    """One payment settled an invoice, and one bought credit."""
    await books.set_up()
    await books.owe()
    await books.top_ups.buy(ACME, NanoDollars(DOLLARS_7), PayBy.STORED_METHOD, idempotency_key="k", actor=OPERATOR)
    for _ in range(3):
        await books.pay()
    assert books.taken == await books.cash() == 2 * DOLLARS_7
    await books.agree()
    async with books.database.transaction() as session:
        await session.execute(text(tampering))
    assert {name for name, _ in await books.broken()} == TAMPERING[tampering]
