"""How many CPUs a replica computes on."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from tokenyard_deployments.serving.engine.launch import BIND

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
THREADS = "OMP_NUM_THREADS"


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
