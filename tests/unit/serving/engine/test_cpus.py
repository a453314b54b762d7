"""A replica computes on the CPUs it may use."""

import os
from pathlib import Path

import pytest

from tokenyard_deployments.serving.engine.cpus import thread_settings, usable_cpus

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


def test_a_replica_that_binds_no_thread_takes_all_and_lets_them_sleep() -> None:
    taken = thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    assert taken == {"OMP_NUM_THREADS": str(usable_cpus()), "OMP_WAIT_POLICY": "PASSIVE"}
    assert thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "0-1"}) == {}
    assert thread_settings({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}) == {}
    assert thread_settings({}) == {}
