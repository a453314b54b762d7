"""How many CPUs a replica computes on, and in which number format they are fast."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenyard_deployments.serving.engine.launch import BIND

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CPU_INFO = Path("/proc/cpuinfo")
THREADS = "OMP_NUM_THREADS"
_COMPUTE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls the instructions of x86 and, the last, of ARM."""


def usable_cpus(quota_file: Path = CGROUP_QUOTA) -> int:
    """Return the CPUs this process may run on, no more than its container's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, math.ceil(int(quota) / int(period))))


def thread_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to a replica's environment before its engine starts; `environment` is the model's own.

    Ray gives a worker that declares less than one CPU a single thread. A replica that binds its threads to no core
    takes all CPUs. A thread that waits for the others sleeps at once, so that it never holds the core that they, the
    front end or training need (platform/adr/0004).
    """
    if environment.get(BIND) != "nobind" or THREADS in environment:
        return {}
    return {THREADS: str(usable_cpus()), "OMP_WAIT_POLICY": "PASSIVE"}


def dtype_settings(engine: Mapping[str, Any], model: Path, cpu_info: Path = CPU_INFO) -> dict[str, str]:
    """Return what to add to the engine's arguments for the number format in which these CPUs compute `model` fastest.

    One without instructions for bfloat16 takes several times as long with it as with float32, which needs twice the
    memory (platform/adr/0044). How quantized weights are computed vLLM knows best.
    """
    config = json.loads((model / "config.json").read_bytes())
    if "dtype" in engine or "quantization" in engine or "quantization_config" in config:
        return {}
    features = cpu_info.read_text().split()
    return {"dtype": "float32" if _COMPUTE_BFLOAT16.isdisjoint(features) else "bfloat16"}
