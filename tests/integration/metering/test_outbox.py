"""What goes through the outbox reaches Redis whatever happens to it: away, restarted, or having lost what it took."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.redis_reader import read_usage
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering import outbox as module
from tokenyard.metering.events import ReplicaReported, encode_event
from tokenyard.metering.outbox import Outbox
from tokenyard.metering.stream import report_outbox
from tokenyard.storage.redis import connect_redis
from tokenyard_deployments.serving.reporter import Reporter

ORGANIZATION = OrganizationId("org_test")
DEADLINE_S = 15.0


def report(number: int) -> ReplicaReported:
    claims = MeterClaims(
        attempt=AttemptId(str(number)),
        organization=ORGANIZATION,
        project=ProjectId("p"),
        key=ApiKeyId("k"),
        model="m",
        base_model="m",
        price=PriceId("c/m"),
        admitted_at_ms=1,
        endpoint="/v1/completions",
    )
    return ReplicaReported(claims, TokenUsage(1, number), "replica", finished=True, reported_at_ms=2)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await true():  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.02)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "valkey").mkdir()
    server = Valkey(tmp_path / "valkey", free_port())
    yield server
    server.stop()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    client = connect_redis(valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def outbox(redis: Redis, spool: Path) -> AsyncIterator[Outbox[ReplicaReported]]:
    made = report_outbox(redis, spool)
    yield made
    await made.close()


def files(spool: Path) -> list[Path]:
    return list(spool.glob("*"))


def break_disk(spool: Path) -> None:
    spool.write_text("a file where the folder should be")


def leave_damaged_file(spool: Path) -> None:
    spool.mkdir()
    (spool / "0001-x.jsonl").write_bytes(b"{not json\n")


async def arrived(redis: Redis) -> set[str]:
    try:
        events = await read_usage(redis, ORGANIZATION)
    except RedisError:
        return set()
    return {event.claims.attempt for event in events if isinstance(event, ReplicaReported)}


async def until_arrived(redis: Redis, *wanted: object) -> None:
    async def all_there() -> bool:
        return set(map(str, wanted)) <= await arrived(redis)

    await until(all_there)


async def until_empty(spool: Path) -> None:
    async def empty() -> bool:
        return files(spool) == []

    await until(empty)


def lose_everything(valkey: Valkey, folder: Path) -> None:
    """Kill the server and bring it back without what it had acknowledged."""
    valkey.kill()
    shutil.rmtree(folder / "valkey" / "appendonlydir")
    valkey.start()


async def test_an_item_arrives_and_leaves_nothing_on_disk(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path
) -> None:
    valkey.start()
    outbox.start()
    await outbox.send(report(1))
    assert await arrived(redis) == {"1"}
    await until_empty(spool)


async def test_items_wait_on_disk_while_redis_is_away(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path
) -> None:
    outbox.start()
    await asyncio.gather(*(outbox.send(report(number)) for number in range(20)))
    assert files(spool)
    valkey.start()
    await until_arrived(redis, *range(20))
    await until_empty(spool)


async def test_the_next_process_sends_what_a_dead_one_left(valkey: Valkey, redis: Redis, spool: Path) -> None:
    dead = report_outbox(redis, spool)
    await dead.send(report(1))
    await dead.close()
    valkey.start()
    heir = report_outbox(redis, spool)
    await heir.check()
    assert await arrived(redis) == {"1"}
    await heir.close()


async def test_what_redis_lost_in_a_crash_is_sent_again(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path, tmp_path: Path
) -> None:
    valkey.start()
    await outbox.check()
    await outbox.send(report(1))
    lose_everything(valkey, tmp_path)
    await outbox.check()
    assert await arrived(redis) == {"1"}
    assert files(spool) == []


async def test_what_redis_may_have_lost_outlives_the_process_that_sent_it(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path, tmp_path: Path
) -> None:
    valkey.start()
    await outbox.check()
    await outbox.send(report(1))
    valkey.kill()
    await outbox.check()  # it sees that Redis is away; then its process is killed
    shutil.rmtree(tmp_path / "valkey" / "appendonlydir")
    valkey.start()
    await outbox.close()
    heir = report_outbox(redis, spool)
    await heir.check()
    assert await arrived(redis) == {"1"}
    await heir.close()


async def test_a_process_that_ends_while_redis_is_away_leaves_what_was_sent_last(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path
) -> None:
    valkey.start()
    await outbox.check()
    await outbox.send(report(1))
    valkey.kill()
    await outbox.close()
    assert files(spool)


async def test_what_redis_has_kept_for_long_is_forgotten(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    monkeypatch.setattr(module, "MAX_KEPT", 1)
    valkey.start()
    await outbox.check()
    await outbox.send(report(1))
    assert outbox.full
    await outbox.check()
    assert not outbox.full
    lose_everything(valkey, tmp_path)
    await outbox.check()
    assert await arrived(redis) == set()


async def test_a_restart_is_told_before_what_waits_on_disk_is_sent(valkey: Valkey, redis: Redis, spool: Path) -> None:
    seen: list[set[str]] = []

    async def note() -> None:
        seen.append(await arrived(redis))

    async def deliver(item: ReplicaReported) -> None:
        await redis.xadd(usage_stream(bucket_of(ORGANIZATION)), {b"event": encode_event(item)})

    outbox = Outbox(redis, spool, ReplicaReported, deliver, on_restart=note)
    await outbox.send(report(1))
    valkey.start()
    await outbox.check()
    await outbox.check()
    assert seen == [set()]
    assert await arrived(redis) == {"1"}
    await outbox.close()


async def test_a_full_disk_stops_new_work_and_loses_nothing(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path
) -> None:
    break_disk(spool)
    await outbox.send(report(1))
    assert outbox.full
    valkey.start()
    await outbox.check()
    assert await arrived(redis) == {"1"}
    assert not outbox.full


async def test_a_damaged_file_is_put_aside_and_stops_nothing(
    valkey: Valkey, redis: Redis, outbox: Outbox[ReplicaReported], spool: Path
) -> None:
    leave_damaged_file(spool)
    await outbox.send(report(1))
    valkey.start()
    await outbox.check()
    assert await arrived(redis) == {"1"}
    assert [file.suffix for file in files(spool)] == [".damaged"]


async def test_a_replica_reports_in_the_background_and_waits_for_it_at_its_end(
    valkey: Valkey, redis: Redis, spool: Path
) -> None:
    valkey.start()
    reporter = Reporter(valkey.url, spool)
    reporter.start()
    reporter.report(report(1))
    await reporter.close()
    assert await arrived(redis) == {"1"}
