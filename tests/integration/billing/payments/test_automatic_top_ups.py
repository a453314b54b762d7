"""Credit that is bought by itself: once whenever little is left, within a month's limit, and not after a refusal."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select, text, update

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, Api, billing_api
from support.billing.stand import ACME, PROJECT, balance
from support.card_payments.account import DECLINES
from support.card_payments.books import PayingBooks
from tokenyard.core.money import NANO_PER_DOLLAR
from tokenyard.core.principal import Limits
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow, OrganizationRow
from tokenyard_billing.apart import RETRY_MS
from tokenyard_billing.top_ups.tables import AutomaticTopUp

OWN, OF_ACME = "/v1/organization/credit/automatic_top_up", "/admin/organizations/acme/automatic_top_up"
WANTED = {"threshold_dollars": "5", "amount_dollars": "20", "month_limit_dollars": "50"}
DOLLARS = NANO_PER_DOLLAR


@pytest.fixture
async def api(books: PayingBooks) -> AsyncIterator[Api]:
    async with billing_api(books.database, books.redis, provider=books.provider, clock=books.clock) as opened:
        yield opened


async def spend(books: PayingBooks, dollars: int) -> None:
    await books.use(dollars * DOLLARS)


async def left(books: PayingBooks) -> int:
    return await balance(books.database, ACME) // DOLLARS


async def test_little_is_left_and_more_is_bought_once(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await books.top_up()
    assert await books.payments() == [], "nobody asked for it"
    status, stated = await api.put(OWN, WANTED, TENANT)
    assert (status, stated["threshold"], stated["failure_code"]) == (200, 5 * DOLLARS, "")
    for _ in range(3):
        await books.top_up()
    assert await left(books) == 20
    await spend(books, 15)
    await books.top_up()
    assert await left(books) == 5, "not less than that is left"
    await spend(books, 1)
    for _ in range(3):
        await books.top_up()
    assert await left(books) == 24
    assert books.taken == await books.cash() == 40 * DOLLARS
    assert [one.state for one in await books.payments()] == ["succeeded"] * 2
    await books.agree()


async def test_a_month_has_its_limit(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await api.put(OWN, WANTED, TENANT)
    for _ in range(4):
        await spend(books, 20)
        await books.top_up()
    assert books.taken == 40 * DOLLARS, "a third would make 60"
    now = datetime.fromtimestamp(books.clock.now_ms() / 1000, UTC)
    next_month = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    books.clock.advance((next_month - now).total_seconds() - 1)
    await books.top_up_loop().step()
    assert len(await books.payments()) == 2
    books.clock.advance(1)
    await books.top_up()
    assert books.taken == 60 * DOLLARS


@pytest.mark.parametrize("card", DECLINES)
async def test_a_refusal_ends_it_until_another_method_is_there(books: PayingBooks, api: Api, card: str) -> None:
    await books.set_up(card)
    await api.put(OWN, WANTED, TENANT)
    for _ in range(3):
        await books.top_up()
    assert (len(await books.payments()), books.taken) == (1, 0)
    assert (await api.get(OWN, TENANT))[1]["failure_code"] == DECLINES[card][1]
    await books.set_up()
    assert (await api.get(OWN, TENANT))[1]["failure_code"] == ""
    await books.top_up()
    assert await left(books) == 20
    await books.agree()


async def test_who_states_it_again_has_it_tried_again(books: PayingBooks, api: Api) -> None:
    await books.set_up(next(iter(DECLINES)))
    for tries in (1, 2):
        books.clock.advance(1)
        await api.put(OWN, WANTED, TENANT)
        for _ in range(2):
            await books.top_up()
        assert len(await books.payments()) == tries


async def test_a_refusal_counts_where_the_clock_of_the_worker_is_behind(books: PayingBooks, api: Api) -> None:
    await books.set_up(next(iter(DECLINES)))
    books.clock.advance(60)
    await api.put(OWN, WANTED, TENANT)
    books.clock.advance(-60)
    for _ in range(3):
        await books.top_up()
    assert len(await books.payments()) == 1


async def test_who_states_it_again_has_it_tried_again_where_the_clock_of_the_worker_is_ahead(
    books: PayingBooks, api: Api
) -> None:
    await books.set_up(next(iter(DECLINES)))
    await api.put(OWN, WANTED, TENANT)
    books.clock.advance(60)
    await books.top_up()
    books.clock.advance(-80)
    assert (await api.put(OWN, WANTED, TENANT))[1]["failure_code"] == ""
    books.clock.advance(80)
    await books.top_up()
    assert len(await books.payments()) == 2


async def test_two_workers_buy_it_once(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await api.put(OWN, WANTED, TENANT)
    await books.worker.leases.hold({})
    loops = [books.top_up_loop() for _ in range(2)]
    await asyncio.gather(*(one.step() for one in loops))
    await books.pay()
    assert books.taken == 20 * DOLLARS
    assert await left(books) == 20


@pytest.mark.parametrize("closed", [{"archived_at": 1}, {"blocked_reason": "an invoice is overdue"}])
async def test_who_can_use_nothing_buys_nothing(books: PayingBooks, api: Api, closed: dict[str, object]) -> None:
    async with books.database.transaction() as session:
        row = {"slug": "acme", "name": "", "default_project_id": PROJECT, "limits": Limits(), "created_at": 1}
        session.add(OrganizationRow(id=ACME, **row, **closed))
    await books.set_up()
    await api.put(OWN, WANTED, TENANT)
    for _ in range(2):
        await books.top_up()
    assert await books.payments() == []
    async with books.database.transaction() as session:
        await session.execute(update(OrganizationRow).values(archived_at=None, blocked_reason=""))
    books.clock.advance(RETRY_MS / 1000)
    await books.top_up()
    assert books.taken == 20 * DOLLARS


WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def one_waits(database: Database) -> None:
    """Return once somebody waits for a lock; SQLite does not say so."""
    if database.is_sqlite:
        await asyncio.sleep(0.05)
        return
    async with asyncio.timeout(10), database.reading() as session:
        while not await session.scalar(WAITING):
            await session.execute(text("SELECT pg_sleep(0.01)"))


async def test_who_changes_what_another_ends_at_the_same_moment_states_it_anew(books: PayingBooks, api: Api) -> None:
    await books.set_up()
    await api.put(OWN, WANTED, TENANT)
    async with books.database.transaction() as session:
        await session.execute(delete(AutomaticTopUp))
        changing = asyncio.create_task(api.put(OWN, {**WANTED, "threshold_dollars": "7"}, TENANT))
        await one_waits(books.database)
    status, stated = await changing
    assert (status, stated["threshold"]) == (200, 7 * DOLLARS)
    async with books.database.transaction() as session:
        await session.execute(delete(AutomaticTopUp))
        ending = asyncio.create_task(api.delete(OWN, TENANT))
        await one_waits(books.database)
    assert (await ending)[0] == 404


async def test_what_is_stated_is_checked_shown_and_ended(books: PayingBooks, api: Api) -> None:
    assert (await api.get(OWN, TENANT))[0] == (await api.get(OF_ACME))[0] == (await api.delete(OWN, TENANT))[0] == 404
    status, refused = await api.put(OWN, WANTED, TENANT)
    assert (status, "No payment method" in refused["error"]["message"]) == (400, True)
    method = await books.set_up()
    for field, bad in (
        *(("amount_dollars", one) for one in ("0.99", "1.001", "100001", "x", "nan")),
        *(("threshold_dollars", one) for one in ("0", "-1", "0.001", "100001")),
        *(("month_limit_dollars", one) for one in ("19.99", "10000001")),
    ):
        status, refused = await api.put(OWN, {**WANTED, field: bad}, TENANT)
        assert (status, refused["error"]["param"]) == (400, field), bad
    assert (await api.put(OWN, {**WANTED, "surprise": 1}, TENANT))[0] == 400
    status, stated = await api.put(OWN, WANTED, TENANT)
    assert await api.get(OF_ACME) == (200, stated)
    assert (await api.get(OWN, OTHER_TENANT))[0] == (await api.delete(OWN, OTHER_TENANT))[0] == 404
    assert (await api.get(OF_ACME, TENANT))[0] == (await api.delete(OF_ACME, TENANT))[0] == 403
    assert (await api.put(OWN, {**WANTED, "amount_dollars": "10"}, TENANT))[1]["amount"] == 10 * DOLLARS
    assert (await api.delete(f"/v1/organization/payment_methods/{method}", TENANT))[0] == 200
    await books.top_up()
    assert await books.payments() == [], "nothing is left to charge"
    assert (await api.delete(OF_ACME, OPERATOR))[0] == 200
    await books.set_up()
    await books.top_up()
    assert await books.payments() == []
    async with books.database.reading() as session:
        query = select(AuditRow.action).where(AuditRow.action.startswith("automatic")).order_by(AuditRow.id)
        noted = (await session.scalars(query)).all()
    assert [one.rpartition(".")[2] for one in noted] == ["set", "set", "deleted"]
