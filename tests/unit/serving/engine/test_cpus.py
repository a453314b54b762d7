"""A replica computes on the CPUs it may use, in the number format they are fast in."""

import os
from pathlib import Path

import pytest

from tokenyard_deployments.serving.engine.cpus import dtype_settings, thread_settings, usable_cpus

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


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("flags : fpu avx avx2 fma", "float32"),
        ("flags : avx512f avx512_vnni", "float32"),
        ("flags : avx512f avx512_bf16", "bfloat16"),
        ("flags : amx_tile amx_bf16", "bfloat16"),
        ("Features : fp asimd bf16", "bfloat16"),
    ],
)
def test_bfloat16_is_for_cpus_with_instructions_for_it(tmp_path: Path, features: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{features}\n")
    (tmp_path / "config.json").write_text("{}")
    assert dtype_settings({}, tmp_path, tmp_path / "cpuinfo") == {"dtype": expected}


def test_what_is_stated_stays_and_quantized_weights_are_vllms_affair(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert dtype_settings({"dtype": "bfloat16"}, tmp_path) == {}
    assert dtype_settings({"quantization": "awq"}, tmp_path) == {}
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    assert dtype_settings({}, tmp_path) == {}
