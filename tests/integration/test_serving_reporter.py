"""Usage reports reach Redis whatever happens to it: away, restarted, or having lost what it acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import ReplicaReported, decode_event
from tokenyard_deployments.serving import reporter as module
from tokenyard_deployments.serving.reporter import Reporter

ORGANIZATION = OrganizationId("org_test")
DEADLINE_S = 15.0


def report(number: int) -> ReplicaReported:
    claims = MeterClaims(
        attempt=AttemptId(f"req_{number}.1"),
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


@pytest.fixture
def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    (tmp_path / "valkey").mkdir()
    server = Valkey(tmp_path / "valkey", free_port())
    yield server
    server.stop()


async def arrived(valkey: Valkey) -> set[str]:
    async with Redis.from_url(valkey.url) as redis:
        entries = await redis.xrange(usage_stream(bucket_of(ORGANIZATION)))
    return {decode_event(fields[b"event"]).claims.attempt for _, fields in entries}  # type: ignore[union-attr]


async def until_arrived(valkey: Valkey, numbers: range) -> None:
    wanted = {f"req_{number}.1" for number in numbers}
    async with asyncio.timeout(DEADLINE_S):
        while not wanted <= await arrived(valkey):  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.02)


async def test_a_report_arrives(valkey: Valkey, tmp_path: Path) -> None:
    valkey.start()
    reporter = Reporter(valkey.url, tmp_path / "spool")
    reporter.start()
    reporter.report(report(1))
    await until_arrived(valkey, range(1, 2))
    await reporter.close()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_reports_wait_on_disk_while_redis_is_away(valkey: Valkey, tmp_path: Path) -> None:
    reporter = Reporter(valkey.url, tmp_path / "spool")
    reporter.start()
    for number in range(20):
        reporter.report(report(number))
    async with asyncio.timeout(DEADLINE_S):
        while len(list((tmp_path / "spool").glob("*.jsonl"))) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    valkey.start()
    await until_arrived(valkey, range(20))
    async with asyncio.timeout(DEADLINE_S):
        while list((tmp_path / "spool").iterdir()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await reporter.close()


async def test_the_next_replica_sends_what_a_dead_one_left(valkey: Valkey, tmp_path: Path) -> None:
    dead = Reporter(valkey.url, tmp_path / "spool")
    dead.report(report(1))
    await dead.close()
    valkey.start()
    heir = Reporter(valkey.url, tmp_path / "spool")
    heir.start()
    await until_arrived(valkey, range(1, 2))
    await heir.close()


async def test_what_redis_lost_in_a_crash_is_sent_again(valkey: Valkey, tmp_path: Path) -> None:
    """The report is acknowledged; then Redis dies and comes back without it."""
    valkey.start()
    reporter = Reporter(valkey.url, tmp_path / "spool")
    reporter.start()
    reporter.report(report(1))
    await until_arrived(valkey, range(1, 2))
    await asyncio.sleep(1.2 * module.REPLAY_INTERVAL_S)  # it looks at Redis once, as it does each second
    valkey.kill()
    for file in (tmp_path / "valkey" / "appendonlydir").iterdir():
        file.unlink()
    valkey.start()
    await until_arrived(valkey, range(1, 2))
    await reporter.close()


async def test_a_full_disk_stops_new_work_and_loses_nothing(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter(valkey.url, tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("a file where the folder should be")
    reporter.report(report(1))
    async with asyncio.timeout(DEADLINE_S):
        while not reporter.full:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    (tmp_path / "spool").unlink()
    (tmp_path / "spool").mkdir()
    valkey.start()
    reporter.start()
    await until_arrived(valkey, range(1, 2))
    async with asyncio.timeout(DEADLINE_S):
        while reporter.full:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await reporter.close()


async def test_the_spool_has_a_cap(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SPOOL_BYTES", 100)
    reporter = Reporter(valkey.url, tmp_path / "spool")
    assert not reporter.full
    reporter.report(report(1))
    await reporter.close()
    assert reporter.full


async def test_a_damaged_file_is_put_aside_and_stops_nothing(valkey: Valkey, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "0001-x.jsonl").write_bytes(b"{not json\n")
    valkey.start()
    dead = Reporter("redis://127.0.0.1:1/0", tmp_path / "spool")
    dead.report(report(1))
    await dead.close()
    reporter = Reporter(valkey.url, tmp_path / "spool")
    reporter.start()
    await until_arrived(valkey, range(1, 2))
    await reporter.close()
    assert [file.suffix for file in (tmp_path / "spool").iterdir()] == [".damaged"]
