"""The consumer may die anywhere: every event is charged exactly once."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisGone

from support.billing.stand import (
    ACME,
    GLOBEX,
    RATE,
    balance,
    charges,
    claims,
    journal_sum,
    live_budget,
    put_pending,
    reconciler,
    reported,
    rows,
    send,
    settled,
    stream_length,
    usage,
    worker,
)
from support.fakes.rate_cards import rate_card
from support.money.live_budgets import put_budget
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.budgets import wallet
from tokenyard.core.money import inference_cost
from tokenyard.core.redis_keys import bucket_of
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.metering.events import UsageEvent
from tokenyard.metering.round_trips import RoundTripPool
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard_billing.bucket_leases import LeaseLost
from tokenyard_billing.charging.streams import UsageStreams
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import DeadLetter

USED = usage(10, 5)
COST = inference_cost(RATE, USED)
TESTS = Path(__file__).parents[2]


def events(count: int, start: int = 0) -> list[UsageEvent]:
    made: list[UsageEvent] = []
    for number in range(start, start + count):
        of_request = claims(f"req_{number}", organization=(ACME, GLOBEX)[number % 2])
        made += [settled(of_request, USED), reported(of_request, USED)]
    return made


async def assert_charged_once(database: Database, redis: Redis, count: int) -> None:
    found = await charges(database)
    assert len(found) == count
    assert {charge.amount for charge in found.values()} == {COST}
    for organization in (ACME, GLOBEX):
        own = sum(charge.amount for charge in found.values() if charge.organization == organization)
        assert await balance(database, organization) == -own
        assert await stream_length(redis, organization) == 0
    assert await journal_sum(database) == 0
    books = await reconciler(database, redis).reconcile()
    assert books.ok
    assert books.tokens.unexplained == 0
    assert set(books.tokens.named.values()) == {0}


class DyingPool(RoundTripPool):
    """The connections of a process that `dies` before it runs a script."""

    def __init__(self, *arguments: Any, dies: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._dies = dies

    async def round_trip(self, commands: Sequence[bytes]) -> list[Any]:
        if self._dies:
            raise RedisGone("the process was killed here")
        return await super().round_trip(commands)


class DyingRedis(Redis):
    """A client whose process is gone at the first command that `at` names."""

    at: bytes = b""

    @classmethod
    def connected(cls, url: str, at: bytes) -> Self:
        plain = connect_redis(url).connection_pool
        client = cls.from_pool(DyingPool(plain.connection_class, **plain.connection_kwargs, dies=at == b"EVALSHA"))
        assert isinstance(client, cls)
        client.at = at
        return client

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self._die_at(args)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py's has no types

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        made = super().pipeline(transaction, shard_hint)
        execute = made.execute

        async def dying(raise_on_error: bool = True) -> list[Any]:
            for queued, _ in made.command_stack:
                self._die_at(queued)
            return await execute(raise_on_error)

        made.execute = dying  # type: ignore[method-assign] # a client cannot name another class for its pipelines
        return made

    def _die_at(self, command: tuple[Any, ...]) -> None:
        if self.at and str(command[0]).encode() == self.at:
            raise RedisGone("the process was killed here")


@pytest.mark.parametrize("command", [b"EVALSHA", b"XACK", b"XTRIM"])
async def test_killed_between_commit_and_apply_or_acknowledgement(
    database: Database, redis: Redis, redis_url: str, command: bytes
) -> None:
    await put_budget(redis, bucket_of(ACME), wallet(ACME), BudgetFigures(0, 0))
    await put_pending(redis, ACME, "req_0", COST)
    await send(redis, *events(2))
    dying = DyingRedis.connected(redis_url, command)
    victim = worker(database, dying, name="victim")
    with pytest.raises(RedisGone):
        await victim.consumer.step()
    assert len(await charges(database)) == 2, "committed before it died"
    await victim.leases.release()
    await dying.aclose()

    await worker(database, redis, name="heir").consumer.step()
    # The last trim may have been lost; the next acknowledgement makes up for it.
    await send(redis, *events(2, start=2))
    await worker(database, redis, name="heir").consumer.step()
    await assert_charged_once(database, redis, 4)
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["pending"]) == (-2 * COST, 0)


async def test_what_a_worker_read_after_it_had_lost_its_lease_is_charged(
    database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped between the look at its lease and the reading; when it went on, the buckets had another holder."""
    monkeypatch.setattr("tokenyard_billing.charging.consumer.RETRY_MS", 0)
    heir = worker(database, redis, name="heir")
    await heir.consumer.step()
    await send(redis, *events(2))
    read = await UsageStreams(redis, "stopped").read_new([bucket_of(ACME), bucket_of(GLOBEX)], 10)
    assert len(read) == 4
    for _ in range(2):
        await heir.consumer.step()
    await assert_charged_once(database, redis, 2)


async def test_killed_between_acknowledging_and_trimming(
    database: Database, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged waits no more, also where nothing follows it that would be trimmed."""
    monkeypatch.setattr("tokenyard_billing.charging.consumer.RETRY_MS", 0)
    await send(redis, *events(2))
    dying = DyingRedis.connected(redis_url, b"XTRIM")
    victim = worker(database, dying, name="victim")
    with pytest.raises(RedisGone):
        await victim.consumer.step()
    await victim.leases.release()
    await dying.aclose()
    assert await stream_length(redis, ACME) == 2
    heir = worker(database, redis, name="heir")
    for _ in range(2):
        await heir.consumer.step()
    await assert_charged_once(database, redis, 2)


async def test_killed_before_the_commit(database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(redis, *events(3))
    victim = worker(database, redis, name="victim")

    async def killed(*_: object, **__: object) -> None:
        raise RedisGone("the process was killed here")

    monkeypatch.setattr(victim.leases, "fence", killed)
    with pytest.raises(RedisGone):
        await victim.consumer.step()
    assert await charges(database) == {}
    await victim.leases.release()
    await worker(database, redis, name="heir").consumer.step()
    await assert_charged_once(database, redis, 3)


async def test_killed_with_signal_nine_at_any_moment_under_load(
    database: Database, redis: Redis, redis_url: str
) -> None:
    """Three deliveries of every event in random order, one worker process after the other killed at a random moment."""
    chance = random.Random(7)
    count = 3_000
    everything = events(count) * 3
    chance.shuffle(everything)
    sending = asyncio.create_task(_send_slowly(redis, everything))
    url = database.engine.url.render_as_string(hide_password=False)
    async with asyncio.timeout(200):
        for run in range(6):
            await _consume(url, redis_url, f"w{run}", kill_after_s=chance.uniform(0.02, 0.5))
        await sending
        await _consume(url, redis_url, "w6")
    await assert_charged_once(database, redis, count)
    assert await rows(database, DeadLetter) == []


async def _consume(database_url: str, redis_url: str, name: str, kill_after_s: float | None = None) -> None:
    """Run a worker process; kill it so long after it began to consume, or let it finish."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.billing.process",
        database_url,
        redis_url,
        name,
        stdout=asyncio.subprocess.PIPE,
        cwd=TESTS,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"consuming\n"
    if kill_after_s is not None:
        await asyncio.sleep(kill_after_s)
        os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == (0 if kill_after_s is None else -signal.SIGKILL)


async def _send_slowly(redis: Redis, everything: list[UsageEvent]) -> None:
    for start in range(0, len(everything), 500):
        await send(redis, *everything[start : start + 500])
        await asyncio.sleep(0.2)


async def test_two_workers_at_once_charge_once(database: Database, redis: Redis) -> None:
    count = 600
    workers = [worker(database, redis, name=name) for name in ("one", "two")]
    for _ in range(2):  # they learn of each other, and divide the buckets
        for each in workers:
            each.leases._renew_at = 0.0
            await each.leases.hold({})
    assert not workers[0].leases.held & workers[1].leases.held

    async def consume(each: Any) -> None:
        while await stream_length(redis, ACME) + await stream_length(redis, GLOBEX):
            with suppress(LeaseLost):  # on a busy machine a lease may run out; the loop goes on, too
                await each.consumer.step()

    await send(redis, *events(count))
    async with asyncio.timeout(60):
        await asyncio.gather(*(consume(each) for each in workers))
    await assert_charged_once(database, redis, count)


async def test_redis_killed_and_started_again_under_load(database: Database, tmp_path: Path) -> None:
    """Events are sent again as emitters do after a restart; what the stream kept comes twice and is charged once."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = Valkey(folder, free_port())
    valkey.start()
    redis = connect_redis(valkey.url)
    stand = worker(database, redis)
    everything = events(1_000)
    try:
        async with asyncio.timeout(90):
            for start in range(0, len(everything), 400):
                await send(redis, *everything[start : start + 400])
                await stand.consumer.step()
                valkey.kill()
                with pytest.raises(RedisGone):
                    await stand.consumer.step()
                valkey.start()
                await send(redis, *everything[start : start + 400])
            while await stream_length(redis, ACME) + await stream_length(redis, GLOBEX):
                await stand.consumer.step()
        await assert_charged_once(database, redis, 1_000)
    finally:
        await redis.aclose()
        valkey.stop()


async def test_an_emptied_redis_does_not_stop_the_worker(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await send(redis, *events(2))
    await stand.consumer.step()
    await redis.flushall()
    await send(redis, *events(3))
    async with asyncio.timeout(10):
        while await stream_length(redis, ACME) + await stream_length(redis, GLOBEX):
            await stand.consumer.step()
    await assert_charged_once(database, redis, 3)


async def test_events_that_sql_cannot_take_stop_nobody(
    database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An amount beyond 64 bits passes every check of the event itself; it is given up after five deliveries."""
    monkeypatch.setattr("tokenyard_billing.charging.consumer.RETRY_MS", 20)
    dear = rate_card("2026-01-01", 1_767_225_600_000, output="1000000")
    stand = worker(database, redis, prices=PriceList([dear]))
    await send(redis, settled(claims("req_huge"), usage(1, 10**12)), settled(claims("req_fine"), usage(10, 0)))
    for _ in range(3):  # the second fails for the first time when the first one's deliveries have begun
        await stand.consumer.step()
    await send(redis, settled(claims("req_later"), usage(1, 10**12)))
    async with asyncio.timeout(20):
        while await stream_length(redis, ACME):
            await stand.consumer.step()
    assert list(await charges(database)) == ["req_fine"]
    dead = await rows(database, DeadLetter)
    assert [letter.deliveries for letter in dead] == [5, 5]
    assert {request for request in ("req_huge", "req_later") for letter in dead if request in letter.event} == {
        "req_huge",
        "req_later",
    }
