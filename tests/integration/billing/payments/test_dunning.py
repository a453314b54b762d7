"""An overdue invoice goes through its steps; the last one blocks its organization, until it is paid."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from support.billing.api import TENANT, Api, billing_api
from support.billing.stand import ACME, rows, worker
from support.card_payments.account import SLOW
from support.card_payments.books import DAYS, DOLLARS_7, INVOICE, OPERATOR, PayingBooks
from support.card_payments.tenant import add_tenant, tenant
from tokenyard.core.errors import QuotaExceeded
from tokenyard.core.redis_keys import bucket_of, revision
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.dunning.loops import DunningLoop
from tokenyard_billing.dunning.schedule import DunningSchedule
from tokenyard_billing.dunning.tables import Dunning
from tokenyard_billing.periods import DAY_MS

DECLINED = "pm_card_chargeDeclined"
EXCEPTION = "/admin/organizations/acme/dunning"


@pytest.fixture
async def api(books: PayingBooks) -> AsyncIterator[Api]:
    async with billing_api(books.database, books.redis, provider=books.provider, clock=books.clock) as opened:
        yield opened


@pytest.fixture
async def overdue(books: PayingBooks) -> PayingBooks:
    """It was due this moment, 30 days after it was issued."""
    await add_tenant(books.database)
    await books.owe()
    books.clock.advance(30 * DAY_MS / 1000)
    return books


async def dun(books: PayingBooks, days: float = 0) -> int:
    """Let days pass, and the worker look; return how many steps were taken until now."""
    books.clock.advance(days * DAY_MS / 1000)
    await books.worker.leases.hold({})
    await books.worker.dunning.step()
    return sum([one.steps for one in await rows(books.database, Dunning)])


async def is_blocked(books: PayingBooks) -> bool:
    holder = await tenant(books.database)
    if not holder.blocked:
        return False
    with pytest.raises(QuotaExceeded, match="overdue") as refusal:
        holder.check_not_blocked()
    assert (refusal.value.status, refusal.value.code) == (429, "insufficient_quota")
    return True


async def until_blocked(books: PayingBooks) -> None:
    for days in (0, 3, 4, 7):
        await dun(books, days)
    assert await is_blocked(books)


async def test_the_steps_come_on_their_days(overdue: PayingBooks) -> None:
    walked = [(days, await dun(overdue, days)) for days in (0, 0, 2.9, 0.1, 3.9, 0.1, 6.9)]
    assert walked == [(0, 1), (0, 1), (2.9, 1), (0.1, 2), (3.9, 2), (0.1, 3), (6.9, 3)]
    assert not await is_blocked(overdue)
    assert await dun(overdue, 0.1) == len(DAYS)
    assert await is_blocked(overdue)
    assert await dun(overdue, 100) == len(DAYS)
    actions = [one.action for one in await rows(overdue.database, AuditRow)]
    assert actions.count("invoice.dunned") == len(DAYS)
    assert actions.count("organization.blocked") == 1


async def test_before_it_is_due_nothing_happens(books: PayingBooks) -> None:
    await books.owe()
    books.clock.advance((30 * DAY_MS - 1000) / 1000)
    assert await dun(books) == 0


async def test_an_outage_does_not_let_steps_come_at_once(overdue: PayingBooks) -> None:
    assert await dun(overdue, 300) == 1
    assert await dun(overdue) == 1
    assert await dun(overdue, 3) == 2


async def _pay(books: PayingBooks) -> None:
    await books.settlements.pay(INVOICE, reference="bank 17", idempotency_key="k", actor=OPERATOR)


async def _void(books: PayingBooks) -> None:
    await books.settlements.void(INVOICE, reason="by mistake", actor=OPERATOR)


async def _by_card(books: PayingBooks) -> None:
    await books.set_up()
    await books.pay()
    assert books.taken == DOLLARS_7


@pytest.mark.parametrize("way", [_pay, _void, _by_card])
async def test_a_payment_undoes_the_block_at_once(
    overdue: PayingBooks, way: Callable[[PayingBooks], Awaitable[None]]
) -> None:
    await until_blocked(overdue)
    before = int(await overdue.redis.get(revision(bucket_of(ACME), ACME)) or 0)
    await way(overdue)
    assert not await is_blocked(overdue)
    assert int(await overdue.redis.get(revision(bucket_of(ACME), ACME)) or 0) > before
    assert await dun(overdue, 100) == len(DAYS)
    assert not await is_blocked(overdue)
    await overdue.agree()


async def test_giving_up_is_no_payment(overdue: PayingBooks) -> None:
    await until_blocked(overdue)
    await overdue.settlements.write_off(INVOICE, reason="bankrupt", actor=OPERATOR)
    await dun(overdue)
    assert await is_blocked(overdue)


async def test_money_that_comes_after_it_was_given_up_undoes_the_block(overdue: PayingBooks) -> None:
    await overdue.set_up(SLOW)
    await overdue.pay()
    await until_blocked(overdue)
    await overdue.settlements.write_off(INVOICE, reason="bankrupt", actor=OPERATOR)
    assert await is_blocked(overdue)
    overdue.stripe.account.finish((await overdue.payment()).charge or "")
    await overdue.poll()
    assert (await overdue.payment()).credited == overdue.taken == DOLLARS_7
    assert not await is_blocked(overdue)
    await overdue.agree()


async def test_a_credit_note_of_all_of_it_undoes_the_block(books: PayingBooks) -> None:
    await add_tenant(books.database)
    await books.spend("req_1", books.dollars_of_output(8))
    await books.owe(0)
    books.clock.advance(30 * DAY_MS / 1000)
    await until_blocked(books)
    await books.correct(request="req_1")
    assert (await books.invoice("2026-03")).state == "paid"
    await dun(books)
    assert not await is_blocked(books)


async def test_each_step_charges_the_card_again(overdue: PayingBooks) -> None:
    await overdue.set_up(DECLINED)
    await overdue.pay()
    for days in (0, 3, 4):
        await dun(overdue, days)
        for _ in range(2):
            await overdue.pay()
    assert [one.state for one in await overdue.payments()] == ["failed"] * 4
    for method in overdue.stripe.account.methods.values():
        method["test_card"] = "pm_card_visa"
    await dun(overdue, 7)
    assert await is_blocked(overdue)
    await overdue.pay()
    assert not await is_blocked(overdue)
    assert overdue.taken == await overdue.cash() == DOLLARS_7


async def test_another_overdue_invoice_keeps_the_block(overdue: PayingBooks) -> None:
    await overdue.use(DOLLARS_7, at_ms=overdue.clock.now_ms())
    overdue.clock.advance(33 * DAY_MS / 1000)
    await overdue.close()
    overdue.clock.advance(31 * DAY_MS / 1000)
    for days in (0, 0, 3, 0, 4, 0, 7, 0):
        await dun(overdue, days)
    assert [one.blocks for one in await rows(overdue.database, Dunning)] == [True, True]
    await _pay(overdue)
    assert await is_blocked(overdue)
    [other] = [one.invoice for one in await rows(overdue.database, Dunning) if one.blocks]
    await overdue.settlements.pay(other, reference="bank 18", idempotency_key="k", actor=OPERATOR)
    assert not await is_blocked(overdue)


async def test_an_operator_excepts_from_dunning(overdue: PayingBooks, api: Api) -> None:
    assert (await api.get(EXCEPTION))[1].items() >= {"exempt": False, "changed_at_ms": None}.items()
    until_ms = overdue.clock.now_ms() + DAY_MS
    status, stated = await api.put(EXCEPTION, {"paused_until_ms": until_ms, "reason": "they asked"})
    assert (status, stated["paused_until_ms"], stated["actor"]) == (200, until_ms, "key_operator")
    assert await dun(overdue) == 0
    assert await dun(overdue, 1) == 1
    for days in (3, 4, 7):
        await dun(overdue, days)
    assert await is_blocked(overdue)
    _, page = await api.get("/admin/dunning", organization="acme")
    assert [(one["id"], one["steps"], one["blocks"]) for one in page["data"]] == [(INVOICE, 4, True)]
    await api.put(EXCEPTION, {"exempt": True, "reason": "a friend"})
    assert not await is_blocked(overdue)
    await api.put(EXCEPTION, {"reason": "a friend no more"})
    assert await is_blocked(overdue)
    changes = [one for one in await rows(overdue.database, AuditRow) if one.action == "organization.dunning_changed"]
    assert [one.details["exempt"] for one in changes] == [False, True, False]
    assert (await api.put(EXCEPTION, {"exempt": True}))[0] in {400, 422}
    assert (await api.put(EXCEPTION, {"reason": "x"}, TENANT))[0] == 403


async def test_two_workers_take_a_step_once(overdue: PayingBooks) -> None:
    other = worker(overdue.database, overdue.redis, name="worker-2", clock=overdue.clock, dunning=DunningSchedule(DAYS))
    overdue.clock.advance(60)
    for one in (other, overdue.worker):
        await one.leases.hold({})
        loop: DunningLoop = one.dunning
        await loop.step()
    assert [one.steps for one in await rows(overdue.database, Dunning)] == [1]


async def _redun(books: PayingBooks, days: tuple[int, ...], later: float) -> None:
    """Let the worker start anew with another schedule, and look some days later."""
    books.worker = worker(
        books.database, books.redis, name="worker-1", clock=books.clock, dunning=DunningSchedule(days)
    )
    await dun(books, later)


async def test_who_is_blocked_stays_so_while_the_schedule_grows_and_goes_on_once_it_has_paid(
    overdue: PayingBooks,
) -> None:
    await until_blocked(overdue)
    for later in (30, 30):
        await _redun(overdue, (*DAYS, 30, 60), later)
        assert await is_blocked(overdue)
        assert [one.blocks for one in await rows(overdue.database, Dunning)] == [True]
    await _pay(overdue)
    assert not await is_blocked(overdue)


@pytest.mark.parametrize("days", [(0, 3), (0, 9)])
async def test_a_schedule_that_shrinks_below_what_was_taken_still_blocks(
    overdue: PayingBooks, days: tuple[int, ...]
) -> None:
    for passed in (0, 3):
        await dun(overdue, passed)
    assert not await is_blocked(overdue)
    await _redun(overdue, days, 10)
    assert await is_blocked(overdue)
    await _redun(overdue, days, 10)
    assert [one.steps for one in await rows(overdue.database, Dunning)] == [2]
    await _pay(overdue)
    assert not await is_blocked(overdue)


async def test_without_a_schedule_nobody_is_dunned(overdue: PayingBooks) -> None:
    other = worker(overdue.database, overdue.redis, name="worker-1", clock=overdue.clock)
    overdue.clock.advance(100 * DAY_MS / 1000)
    await other.leases.hold({})
    await other.dunning.step()
    assert await rows(overdue.database, Dunning) == []


@pytest.mark.parametrize("days", [(3, 3), (-1,), (7, 3)])
def test_a_schedule_that_does_not_rise(days: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        DunningSchedule(days)
