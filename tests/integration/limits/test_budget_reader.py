"""What is read of Redis' budgets and holds comes whole, in parts of a bounded size."""

from collections.abc import AsyncIterable, Sequence

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, BudgetTable, admission_request, principal
from support.money.live_budgets import add_pending, put_budget
from tokenyard.core.budgets import BudgetKey, LiveBudget, LiveHold, wallet
from tokenyard.core.ids import OrganizationId, RequestId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.limits import budget_reader
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.budget_reader import RedisBudgetReader

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)


@pytest.fixture
def reader(redis: Redis) -> RedisBudgetReader:
    return RedisBudgetReader(redis)


async def collect(parts: AsyncIterable[Sequence[LiveBudget]]) -> list[Sequence[LiveBudget]]:
    return [part async for part in parts]


async def test_every_budget_comes_once_in_parts(
    reader: RedisBudgetReader, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_reader, "PAGE", 10)
    keys = set()
    for number in range(45):
        owner = OrganizationId(f"org_{number}")
        keys.add(BudgetKey(bucket_of(owner), wallet(owner)))
        await put_budget(redis, bucket_of(owner), wallet(owner), BudgetFigures(number, 1))
    parts = await collect(reader.every_budget())
    assert max(map(len, parts)) <= 10
    found = [one for part in parts for one in part]
    assert {one.key for one in found} == keys
    assert sum(one.ledger or 0 for one in found) == sum(range(45))


async def test_charges_come_in_parts_and_too_many_not_at_all(
    reader: RedisBudgetReader, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_reader, "MAX_CHARGES", 5)
    counts = {1: 4, 2: 6, 3: 5, 4: 0}  # by bucket
    for bucket, count in counts.items():
        for number in range(count):
            for name in ("wallet:a", "month:a:2026-03"):
                await add_pending(redis, bucket, name, f"req_{number}", 7)
    parts = await collect(reader.budgets([BudgetKey(bucket, "wallet:a") for bucket in counts]))
    assert max(sum(len(one.charges or ()) for one in part) for part in parts) <= 2 * 5
    found = {one.key.bucket: one for part in parts for one in part}
    assert {bucket: len(one.charges or ()) for bucket, one in found.items()} == counts | {2: 0}
    assert found[2].charges is None
    assert found[1].charges == {f"req_{number}": 7 for number in range(4)}
    assert found[2].pending == 42
    [[month]] = await collect(reader.budgets([BudgetKey(3, "month:a:2026-03")]))
    assert (month.pending, len(month.charges or ())) == (35, 5)


async def test_a_budget_that_is_only_known_has_no_ledger_figure(reader: RedisBudgetReader, redis: Redis) -> None:
    await put_budget(redis, BUCKET, WALLET, BudgetFigures())
    [[found]] = await collect(reader.every_budget())
    assert found == LiveBudget(BudgetKey(BUCKET, WALLET), None, -1, 0, 0, {})


async def test_holds_and_what_is_held_of_their_budgets(
    reader: RedisBudgetReader, admission: RedisAdmission, budgets: BudgetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets.set(WALLET, 10**18)
    for number in range(2):
        asked = admission_request(principal(), amount=2**54 + 1, request=RequestId(f"req_{number}"))
        await admission.admit(asked)
    found = await reader.holds(BUCKET, ["month:other:2026-03"])
    assert found.held == {WALLET: 2 * (2**54 + 1), "month:other:2026-03": 0}
    assert found.holds is not None
    ends = {hold.request: hold.lease_end_ms for hold in found.holds}
    assert all(0 < end - found.now_ms <= 30_000 for end in ends.values())
    assert list(found.holds) == [LiveHold(name, ends[name], 2**54 + 1, [WALLET]) for name in ("req_0", "req_1")]
    monkeypatch.setattr(budget_reader, "MAX_HOLDS", 1)
    assert (await reader.holds(BUCKET)).holds is None
