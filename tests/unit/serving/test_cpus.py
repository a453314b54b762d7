"""A replica computes on the CPUs it may use."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tokenyard_deployments.serving.engine import cpus
from tokenyard_deployments.serving.engine.cpus import follow_load, niced_cpu_seconds, thread_settings, usable_cpus

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", ALLOWED),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("99900000 100000", ALLOWED),
        ("odd", ALLOWED),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cpus(tmp_path / "cpu.max") == expected
    assert usable_cpus(tmp_path / "absent") == ALLOWED


def test_a_replica_that_binds_no_thread_takes_all() -> None:
    taken = thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    assert taken["OMP_NUM_THREADS"] == str(usable_cpus())
    assert taken.keys() == {"OMP_NUM_THREADS", "GOMP_SPINCOUNT"}
    assert thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "0-1"}) == {}
    assert thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}) == {}
    assert thread_settings({}) == {}


def test_the_time_of_niced_processes_is_read(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  100 {7 * os.sysconf('SC_CLK_TCK')} 300 400 0 0 0 0 0 0\ncpu0 1 2 3 4\n")
    assert niced_cpu_seconds(stat) == 7
    assert niced_cpu_seconds() >= 0


@pytest.mark.parametrize(("usable", "less"), [(2, 1), (8, 7)])
async def test_threads_follow_what_trains(monkeypatch: pytest.MonkeyPatch, usable: int, less: int) -> None:
    monkeypatch.setattr(cpus, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(cpus, "CALM_S", 0.05)
    clock, training = time.monotonic, True
    began = clock()
    at_rest = 0.0

    def niced_seconds() -> float:
        return (clock() - began) if training else at_rest

    chosen: asyncio.Queue[int] = asyncio.Queue()
    following = asyncio.create_task(follow_load(usable, chosen.put, niced_seconds))
    try:
        async with asyncio.timeout(5):
            assert await chosen.get() == less
            at_rest = niced_seconds()
            training = False
            assert await chosen.get() == usable
            began, training = clock() - at_rest, True
            assert await chosen.get() == less
    finally:
        following.cancel()


async def test_one_cpu_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "LOOK_EVERY_S", 0.001)
    chosen: asyncio.Queue[int] = asyncio.Queue()
    following = asyncio.create_task(follow_load(1, chosen.put, time.monotonic))
    await asyncio.sleep(0.05)
    following.cancel()
    assert chosen.empty()
