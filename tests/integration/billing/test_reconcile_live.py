"""What was tampered with in Redis is found in buckets that are busy, each by its own name; what moves is not."""

from collections.abc import Awaitable, Callable

import pytest

from support.billing.busy_books import HELD, BusyBooks
from support.billing.stand import ACME, GLOBEX, KEY, put_pending
from support.money.live_budgets import change_budget, read_pending
from tokenyard.core.budgets import month_name, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, holds, request, usage_stream
from tokenyard.limits import budget_reader
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.storage.redis import RedisRun
from tokenyard_billing.proof.checks.live_holds import LiveHoldCheck

ACME_WALLET = wallet(ACME)
STRANGER = OrganizationId("org_stranger")


async def drift(books: BusyBooks, figure: str, by: int, organization: OrganizationId = ACME, name: str = "") -> None:
    """Change one figure of a live budget, past the scripts."""
    await change_budget(books.redis, bucket_of(organization), name or wallet(organization), figure, by)


@pytest.mark.parametrize(
    ("place", "change", "difference"),
    [
        ((ACME, "wallet:org_acme"), ("ledger", 5), "live_budget_differs"),
        ((GLOBEX, "wallet:org_globex"), ("ledger", -5), "live_budget_differs"),
        ((ACME, "month:key_1:{month}"), ("ledger", 5), "live_budget_differs"),
        ((STRANGER, "wallet:org_stranger"), ("ledger", 5), "live_budget_differs"),
        ((STRANGER, "month:proj_stranger:2020-01"), ("ledger", 5), "live_budget_differs"),
        ((ACME, "wallet:org_acme"), ("version", 1), "live_budget_ahead"),
        ((ACME, "month:org_acme:{month}"), ("version", 1), "live_budget_ahead"),
        ((ACME, "wallet:org_acme"), ("version", -1), "live_budget_behind"),
        ((ACME, "month:org_acme:{month}"), ("version", -1), "live_budget_behind"),
        ((ACME, "wallet:org_acme"), ("pending", 5), "pending_not_sum"),
        ((GLOBEX, "month:key_2:{month}"), ("pending", -5), "pending_not_sum"),
        ((ACME, "wallet:org_acme"), ("held", 5), "held_not_holds"),
        ((GLOBEX, "wallet:org_globex"), ("held", -5), "held_not_holds"),
        ((ACME, "month:key_1:{month}"), ("held", 5), "held_not_holds"),
    ],
)
async def test_a_figure_of_a_live_budget_that_drifted_is_found(
    books: BusyBooks, place: tuple[OrganizationId, str], change: tuple[str, int], difference: str
) -> None:
    name = place[1].format(month=books.month)
    await drift(books, *change, place[0], name)
    assert await books.broken() == {(difference, name)}


async def test_a_budget_that_is_behind_is_explained_by_a_message_on_its_way(books: BusyBooks) -> None:
    await books.tamper("UPDATE storage_outbox SET carried_to = NULL")
    await drift(books, "version", -1)
    assert await books.broken() == set()
    await books.tamper("UPDATE storage_outbox SET due_at_ms = 0")
    await books.outbox.step()
    assert await books.broken() == set()
    await drift(books, "version", -1)
    assert await books.broken() == {("live_budget_behind", ACME_WALLET)}


async def test_a_pending_charge_without_reason_is_a_phantom(books: BusyBooks) -> None:
    await put_pending(books.redis, ACME, "req_gone", 7)
    await put_pending(books.redis, ACME, "req_a", 8, month_name(KEY, books.month))
    found = [(one.name, one.subject, one.detail) for one in (await books.reconcile()).differences]
    assert found == [
        ("pending_phantom", f"{month_name(KEY, books.month)}/req_a", "8 nano-dollars; charged in SQL"),
        ("pending_phantom", f"{ACME_WALLET}/req_gone", "7 nano-dollars; unknown to SQL"),
    ]


async def _take_from_stream(books: BusyBooks) -> None:
    """Lose the event of req_new, which is pending."""
    await books.redis.delete(usage_stream(bucket_of(ACME)))


async def _forget_open_request(books: BusyBooks) -> None:
    await books.tamper("DELETE FROM billing_open_requests WHERE request = 'req_left'")


@pytest.mark.parametrize(("lose", "request_id"), [(_take_from_stream, "req_new"), (_forget_open_request, "req_left")])
async def test_a_pending_charge_is_a_phantom_once_its_reason_is_lost(
    books: BusyBooks, lose: Callable[[BusyBooks], Awaitable[None]], request_id: str
) -> None:
    await lose(books)
    budgets = (ACME_WALLET, month_name(ACME, books.month), month_name(KEY, books.month))
    assert await books.broken() == {("pending_phantom", f"{name}/{request_id}") for name in budgets}


async def test_a_charge_is_pending_until_its_message_was_carried(books: BusyBooks) -> None:
    await put_pending(books.redis, ACME, "req_a", 8)
    await books.tamper("UPDATE storage_outbox SET carried_to = NULL")
    assert await books.broken() == set()
    await books.tamper("UPDATE storage_outbox SET due_at_ms = 0")
    await books.outbox.step()
    assert "req_a" not in await read_pending(books.redis, bucket_of(ACME), ACME_WALLET)


async def test_a_dead_letter_explains_what_it_left_pending(books: BusyBooks) -> None:
    await put_pending(books.redis, ACME, "req_dead", 8)
    await books.redis.xadd(usage_stream(bucket_of(ACME)), {"event": '{"about": "req_dead.1"'})
    assert await books.broken() == set(), "its event stands in the stream"
    await books.worker.consumer.step()
    found = await books.reconcile()
    assert found.ok
    assert "dead_letter" in {one.name for one in found.differences}
    await books.tamper("DELETE FROM billing_dead_letters")
    assert await books.broken() == {("pending_phantom", f"{ACME_WALLET}/req_dead")}


async def test_money_that_a_lost_hold_took_is_found(books: BusyBooks) -> None:
    await books.redis.delete(request(bucket_of(ACME), "req_held"))
    budgets = (ACME_WALLET, month_name(ACME, books.month), month_name(KEY, books.month))
    assert await books.broken() == {("held_not_holds", name) for name in budgets}
    await books.redis.zrem(holds(bucket_of(ACME)), "req_held")
    assert await books.broken() == {("held_not_holds", name) for name in budgets}
    for name in budgets:
        await drift(books, "held", -HELD, name=name)
    assert await books.broken() == set()


async def test_a_hold_that_outlived_its_lease_is_found(books: BusyBooks) -> None:
    seconds, _ = await books.redis.time()
    await books.redis.zadd(holds(bucket_of(ACME)), {"req_held": (seconds - 10) * 1000})
    assert await books.broken() == set(), "the sweeper may still come"
    assert await books.broken(hold_grace_s=0) == {("hold_outlived_lease", "req_held")}


@pytest.mark.parametrize(("uptime_s", "found"), [(9, []), (11, ["hold_outlived_lease"])])
async def test_after_redis_came_back_holds_may_wait_for_the_sweeper(
    books: BusyBooks, uptime_s: int, found: list[str]
) -> None:
    await books.redis.zadd(holds(bucket_of(ACME)), {"req_held": 1_000})
    check = LiveHoldCheck(RedisBudgetReader(books.redis), RedisRun("run", uptime_s), grace_s=10)
    assert [one.name for one in await check.look(bucket_of(ACME), ())] == found


async def test_what_is_too_much_to_look_at_is_said(books: BusyBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_reader, "MAX_CHARGES", 1)
    monkeypatch.setattr(budget_reader, "MAX_HOLDS", 0)
    found = await books.reconcile()
    assert found.ok
    budgets = (ACME_WALLET, month_name(ACME, books.month), month_name(KEY, books.month))
    assert {(one.name, one.subject) for one in found.differences} == {
        ("holds_not_read", f"bucket {bucket_of(ACME)}"),
        *(("pending_not_read", name) for name in budgets),
    }
