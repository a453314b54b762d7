"""Tenants' own routes: ways to pay, and credit that is bought once."""

from collections.abc import AsyncIterator

import pytest

from support.billing.api import OTHER_TENANT, TENANT, Api, billing_api
from support.billing.stand import ACME, balance
from support.card_payments.account import SLOW, UNVERIFIED
from support.card_payments.books import PayingBooks
from support.card_payments.server import Fault

TOP_UPS, METHODS = "/v1/organization/credit/top_ups", "/v1/organization/payment_methods"
DOLLARS_20 = 20 * 10**9
ASKED = {"amount_dollars": "20", "idempotency_key": "once"}


@pytest.fixture
async def api(books: PayingBooks) -> AsyncIterator[Api]:
    async with billing_api(books.database, books.redis, provider=books.provider, clock=books.clock) as opened:
        yield opened


async def test_credit_is_bought_on_stripe_s_page(books: PayingBooks, api: Api) -> None:
    status, bought = await api.post(TOP_UPS, ASKED, TENANT)
    assert (status, bought["state"], bought["amount"]) == (200, "created", DOLLARS_20)
    assert bought["checkout_url"].startswith("https://checkout.stripe.com/")
    assert (await api.post(TOP_UPS, ASKED, TENANT)) == (200, bought)
    [session] = books.stripe.account.sessions
    await books.pay()
    assert await balance(books.database, ACME) == 0
    books.stripe.account.complete_payment(session)
    await books.tell("checkout.session.completed")
    await books.pay()
    _, paid = await api.get(f"/v1/organization/payments/{bought['id']}", TENANT)
    assert (paid["state"], paid["credited"]) == ("succeeded", DOLLARS_20)
    assert await balance(books.database, ACME) == await books.cash() == books.taken == DOLLARS_20
    await books.poll()
    assert await balance(books.database, ACME) == DOLLARS_20
    await books.agree()


async def test_a_page_that_nobody_pays_on_ends(books: PayingBooks, api: Api) -> None:
    await api.post(TOP_UPS, ASKED, TENANT)
    await books.pay()
    [session] = books.stripe.account.sessions
    books.stripe.account.expire(session)
    await books.poll()
    assert (await books.payment()).state == "cancelled"
    await api.post(TOP_UPS, {**ASKED, "idempotency_key": "two"}, TENANT)
    books.stripe.account.complete_payment([*books.stripe.account.sessions][-1], SLOW)
    await books.poll()
    slow = (await books.payments())[-1]
    assert slow.state == "processing"
    books.stripe.account.finish(slow.charge or "", well=False)
    await books.poll()
    assert (await books.payments())[-1].state == "failed"
    assert await balance(books.database, ACME) == books.taken == 0


async def test_a_page_whose_payer_has_to_do_more_waits_for_it(books: PayingBooks, api: Api) -> None:
    """Such as to confirm small deposits: the page is done, and the money comes days later."""
    await api.post(TOP_UPS, ASKED, TENANT)
    [session] = books.stripe.account.sessions
    books.stripe.account.complete_payment(session, UNVERIFIED)
    for _ in range(2):
        await books.poll()
    payment = await books.payment()
    assert payment.state == "processing"
    books.stripe.account.verify(payment.charge or "")
    books.stripe.account.finish(payment.charge or "")
    await books.poll()
    assert await balance(books.database, ACME) == await books.cash() == books.taken == DOLLARS_20
    await books.agree()


async def test_credit_is_bought_by_the_stored_method(books: PayingBooks, api: Api) -> None:
    asked = {**ASKED, "by": "stored_method"}
    status, refused = await api.post(TOP_UPS, asked, TENANT)
    assert (status, refused["error"]["param"]) == (400, "by")
    await books.set_up()
    for _ in range(2):
        status, bought = await api.post(TOP_UPS, asked, TENANT)
        assert (status, bought["checkout_url"]) == (200, None)
    for _ in range(2):
        await books.pay()
    assert await balance(books.database, ACME) == await books.cash() == books.taken == DOLLARS_20
    assert (await api.post(TOP_UPS, {**asked, "amount_dollars": "21"}, TENANT))[0] == 409
    assert (await api.post(TOP_UPS, ASKED, TENANT))[0] == 409
    await books.agree()


async def test_bad_amounts(api: Api) -> None:
    for amount in ("0", "-5", "0.5", "1.001", "100001", "nan", "x"):
        status, answer = await api.post(TOP_UPS, {"amount_dollars": amount}, TENANT)
        assert (status, answer["error"]["param"]) == (400, "amount_dollars"), amount


async def test_what_is_unfinished_is_bounded(books: PayingBooks, api: Api) -> None:
    for path, body in ((TOP_UPS, {"amount_dollars": "20"}), (f"{METHODS}/setup", None)):
        answers = [(await api.post(path, body, TENANT))[0] for _ in range(11)]
        assert answers == [200] * 10 + [409]
        assert (await api.post(path, body, OTHER_TENANT))[0] == 200


async def test_a_page_that_could_not_be_made_is_asked_for_again(books: PayingBooks, api: Api) -> None:
    books.stripe.faults.append(("/checkout/sessions", Fault.ERROR))
    status, answer = await api.post(TOP_UPS, ASKED, TENANT)
    assert (status, answer["error"]["code"]) == (503, "server_is_overloaded")
    books.clock.advance(1)
    status, bought = await api.post(TOP_UPS, ASKED, TENANT)
    assert status == 200
    assert bought["checkout_url"]
    assert len(await books.payments()) == 1


async def test_methods_are_listed_chosen_and_removed(books: PayingBooks, api: Api) -> None:
    first, second = await books.set_up(), await books.set_up()
    _, page = await api.get(METHODS, TENANT)
    assert [(one["id"], one["default"]) for one in page["data"]] == [(second, True), (first, False)]
    assert page["data"][0].items() >= {"brand": "visa", "last4": "4242", "expires": "2031-03"}.items()
    status, chosen = await api.post(f"{METHODS}/{first}/default", key=TENANT)
    assert (status, chosen["id"], chosen["default"]) == (200, first, True)
    assert (await api.delete(f"{METHODS}/{first}", TENANT))[0] == 200
    _, page = await api.get(METHODS, TENANT)
    assert [(one["id"], one["default"]) for one in page["data"]] == [(second, False)]
    await books.owe()
    await books.pay()
    assert await books.payments() == []


async def test_who_was_deleted_at_stripe_begins_anew_there(books: PayingBooks, api: Api) -> None:
    """As is everybody once another account's key is set, such as one for real money after one for tests."""
    await books.set_up()
    books.stripe.account.customers.clear()
    assert (await api.get(METHODS, TENANT))[1]["data"] == []
    assert (await api.post(TOP_UPS, {**ASKED, "by": "stored_method"}, TENANT))[0] == 200
    await books.pay()
    assert (await books.payment()).failure_code == "resource_missing"
    status, page = await api.post(f"{METHODS}/setup", key=TENANT)
    assert status == 200
    assert (await api.post(TOP_UPS, {**ASKED, "by": "stored_method", "idempotency_key": "two"}, TENANT))[0] == 400
    method = books.stripe.account.complete_setup(page["id"])
    await books.poll()
    _, listed = await api.get(METHODS, TENANT)
    assert [(one["id"], one["default"]) for one in listed["data"]] == [(method, True)]
    books.stripe.account.customers.clear()
    asked = {**ASKED, "idempotency_key": "three"}
    status, bought = await api.post(TOP_UPS, asked, TENANT)
    assert (status, (await api.post(TOP_UPS, asked, TENANT))[1]) == (200, bought)
    books.stripe.account.complete_payment([*books.stripe.account.sessions][-1])
    await books.poll()
    assert await balance(books.database, ACME) == books.taken == DOLLARS_20


async def test_another_tenant_sees_and_changes_nothing(books: PayingBooks, api: Api) -> None:
    method = await books.set_up()
    _, bought = await api.post(TOP_UPS, ASKED, TENANT)
    assert (await api.get(f"/v1/organization/payments/{bought['id']}", OTHER_TENANT))[0] == 404
    assert (await api.get("/v1/organization/payments", OTHER_TENANT))[1]["data"] == []
    assert (await api.get(METHODS, OTHER_TENANT))[1]["data"] == []
    await api.post(f"{METHODS}/setup", key=OTHER_TENANT)
    assert (await api.post(f"{METHODS}/{method}/default", key=OTHER_TENANT))[0] == 404
    assert (await api.delete(f"{METHODS}/{method}", OTHER_TENANT))[0] == 404
    assert books.stripe.account.methods[method]["customer"] is not None
    _, other = await api.post(TOP_UPS, ASKED, OTHER_TENANT)
    assert other["id"] != bought["id"]


async def test_without_a_provider(books: PayingBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        assert (await api.get(METHODS, TENANT))[0] == 404
        assert (await api.post(TOP_UPS, ASKED, TENANT))[0] == 404
        assert (await api.post("/webhooks/stripe", {}))[0] == 404
        assert (await api.get("/v1/organization/payments", TENANT))[1]["data"] == []


async def test_operators_see_all_payments(books: PayingBooks, api: Api) -> None:
    _, bought = await api.post(TOP_UPS, ASKED, TENANT)
    for params in ({}, {"organization": "acme"}, {"state": "created"}):
        _, page = await api.get("/admin/payments", **params)
        assert [one["id"] for one in page["data"]] == [bought["id"]]
    assert (await api.get("/admin/payments", organization="globex"))[1]["data"] == []
    assert (await api.get("/admin/payments", TENANT))[0] == 403
