"""What Stripe tells of by itself only says where to look: forged, old, twice or in any order, it changes no money."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.billing.api import Api, billing_api
from support.billing.stand import ACME, rows
from support.card_payments.account import SLOW
from support.card_payments.books import DOLLARS_7, PayingBooks
from tokenyard_billing.payments.tables import PaymentCustomer
from tokenyard_billing.tables import Alarm

MINUTE_MS = 60_000


@pytest.fixture
async def api(books: PayingBooks) -> AsyncIterator[Api]:
    async with billing_api(books.database, books.redis, provider=books.provider, clock=books.clock) as opened:
        yield opened


async def send(api: Api, body: bytes, signature: str) -> tuple[int, dict[str, Any]]:
    headers = {"stripe-signature": signature, "content-type": "application/json"}
    async with api.session.post(f"{api.url}/webhooks/stripe", data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def deliver(books: PayingBooks, api: Api) -> None:
    """Send all events in the wrong order, and each twice."""
    for event in [*reversed(books.stripe.account.events), *books.stripe.account.events]:
        assert (await send(api, *books.stripe.signed(event, books.clock.now_ms())))[0] == 200


async def test_every_event_in_any_order(books: PayingBooks, api: Api) -> None:
    await books.set_up(SLOW)
    await books.owe()
    await books.pay()
    payment = await books.payment()
    await deliver(books, api)
    await books.pay()
    assert (await books.payment()).state == "processing"
    books.stripe.account.finish(payment.charge or "")
    await deliver(books, api)
    await books.pay()
    assert (await books.payment()).state == "succeeded"
    await deliver(books, api)
    await books.pay()
    assert books.taken == await books.cash() == DOLLARS_7
    await books.agree()


async def test_what_is_not_stripe_s_is_refused(books: PayingBooks, api: Api) -> None:
    event = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": {"id": "pi_1"}}}
    now_ms = books.clock.now_ms()
    body, signature = books.stripe.signed(event, now_ms)
    for headers in (
        books.stripe.signed(event, now_ms, secret="whsec_other")[1],
        books.stripe.signed({**event, "id": "evt_2"}, now_ms)[1],
        books.stripe.signed(event, now_ms - 6 * MINUTE_MS)[1],
        books.stripe.signed(event, now_ms + 6 * MINUTE_MS)[1],
        *("", "t=1", "nonsense", signature.replace("v1=", "v0="), f"t={now_ms // 1000},v1=\u00e9"),
    ):
        status, answer = await send(api, body, headers)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert (await send(api, *books.stripe.signed({"id": "evt_1"}, now_ms)))[0] == 400
    assert (await send(api, body, signature)) == (200, {"received": True})  # an intent of somebody else's


async def test_what_has_no_id_is_passed_over(books: PayingBooks, api: Api) -> None:
    """Stripe gives up on an endpoint that keeps refusing what it was not asked to leave out."""
    for told in ({"object": "balance", "available": []}, {"object": "invoice", "payment_intent": None}):
        event = {"id": "evt_1", "type": f"{told['object']}.told", "data": {"object": told}}
        answer = await send(api, *books.stripe.signed(event, books.clock.now_ms()))
        assert answer == (200, {"received": True})


async def test_a_dispute_is_an_alarm_of_its_organization(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await books.owe()
    await books.pay()
    books.stripe.account.dispute((await books.payment()).charge or "")
    await deliver(books, api)
    [alarm] = await rows(books.database, Alarm)
    assert (alarm.kind, alarm.subject, alarm.organization) == ("payment_disputed", "du_1", "org_acme")


async def test_each_refund_of_a_part_is_an_alarm(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await books.owe()
    await books.pay()
    for cents in (100, 250):
        books.stripe.account.refund((await books.payment()).charge or "", cents)
    await deliver(books, api)
    alarms = [one for one in await rows(books.database, Alarm) if one.kind == "payment_refunded"]
    assert [one.message.partition(" dollars")[0] for one in sorted(alarms, key=lambda one: one.subject)] == [
        *("1.00", "3.50")
    ]


async def test_a_set_up_that_nobody_told_of_is_found(books: PayingBooks) -> None:
    page = await books.methods.set_up(ACME)
    method = books.stripe.account.complete_setup(page.id)
    await books.poll()
    [customer] = await rows(books.database, PaymentCustomer)
    assert customer.default_method == method
