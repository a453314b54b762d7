"""How many CPUs a replica computes on: all it may use, and one less while training has the machine too."""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tokenyard_deployments.serving.engine.launch import BIND

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
MACHINE_CPU_TIME = Path("/proc/stat")
THREADS = "OMP_NUM_THREADS"
WAIT = "GOMP_SPINCOUNT"
# Turns of a loop, some microseconds: long enough to catch the next layer, short enough to give up a core that is
# wanted elsewhere.
TURNS_OF_WAITING = 5_000
LOOK_EVERY_S = 1.0
# Training counts as running from this many CPUs on, and as over once it was below for so long.
TRAINING_CPUS = 0.25
CALM_S = 5.0


def usable_cpus(quota_file: Path = CGROUP_QUOTA) -> int:
    """Return the CPUs this process may run on, no more than its container's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, math.ceil(int(quota) / int(period))))


def follows_load(environment: Mapping[str, str]) -> bool:
    """Tell whether a replica chooses its threads itself: it binds none to a core, and nobody has set their number."""
    return environment.get(BIND) == "nobind" and THREADS not in environment


def thread_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to a replica's environment before its engine starts; `environment` is the model's own.

    Ray gives a worker that declares less than one CPU a single thread.
    """
    if not follows_load(environment):
        return {}
    return {THREADS: str(usable_cpus()), WAIT: str(TURNS_OF_WAITING)}


def niced_cpu_seconds(stat: Path = MACHINE_CPU_TIME) -> float:
    """Return the CPU time that processes of a lowered priority have had on this machine since it started."""
    _cpu, _user, niced, *_ = stat.read_text().split(maxsplit=3)
    return int(niced) / os.sysconf("SC_CLK_TCK")


async def follow_load(
    usable: int, compute_on: Callable[[int], Awaitable[None]], niced_seconds: Callable[[], float] = niced_cpu_seconds
) -> None:
    """Compute on all CPUs, and on one less while training runs on this machine; for ever.

    Training is what has a lowered priority: so this knows it wherever it was started, and nobody need tell.
    The threads wait for each other at every layer; one that must share its core holds up all.
    """
    threads, calm_since = usable, 0.0
    before, then = niced_seconds(), time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        niced, now = niced_seconds(), time.monotonic()
        if (niced - before) / (now - then) >= TRAINING_CPUS:
            wanted, calm_since = max(1, usable - 1), now
        else:
            wanted = usable if now - calm_since >= CALM_S else threads
        before, then = niced, now
        if wanted != threads:
            await compute_on(wanted)
            threads = wanted
