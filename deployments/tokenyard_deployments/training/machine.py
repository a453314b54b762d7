"""How training behaves on the machine it shares with serving: priority, threads, number format, batch in memory."""

import os
from collections.abc import Callable

import torch

from tokenyard.core.training import TrainingResources

# Of one forward and backward pass. On a CPU, 2,700 of the shipped model, 135M parameters, take 7 GiB (measured).
_TOKENS_IN_MEMORY = {"cpu": 2048, "cuda": 16384}
_GENERATED_IN_MEMORY = {"cpu": 16384, "cuda": 65536}


def thread_count(resources: TrainingResources, *, workers_here: int = 1) -> int:
    """Return the threads of one worker: as asked, or its part of every core but one, which stays free for serving.

    Threads of one matrix product wait for each other. On a core that something else holds, that wait is a whole time
    slice at every layer: two threads on two busy cores are over ten times slower than one (measured).
    """
    return resources.threads or max(1, ((os.cpu_count() or 2) - 1) // workers_here)


def worker_environment(resources: TrainingResources) -> dict[str, str]:
    """Return what must stand in a worker's environment before torch is imported.

    Ray would set OMP_NUM_THREADS to the worker's logical CPUs. Threads that wait sleep, so that they do not hold the
    core that the other thread needs.
    """
    return {
        "OMP_NUM_THREADS": str(thread_count(resources)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def limit_process(resources: TrainingResources, *, workers_here: int = 1) -> None:
    """Lower this process's priority and set its threads. Ray's workers may already run niced."""
    os.nice(max(0, resources.nice - os.nice(0)))
    torch.set_num_threads(thread_count(resources, workers_here=workers_here))


def base_dtype(resources: TrainingResources) -> torch.dtype:
    """Return the number format of the frozen base: bfloat16 where the machine is fast at it, else float32.

    Without AMX a CPU trains about 1.7 times faster in float32 (measured).
    """
    fast = resources.gpus > 0 or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def answers_at_once(longest: int, *, gpu: bool) -> int:
    """Return how many answers may be generated side by side, each with its prompt up to `longest` tokens: only their
    keys and values are in memory then, and nothing to go back through.
    """
    return max(1, _GENERATED_IN_MEMORY["cuda" if gpu else "cpu"] // longest)


def micro_batch(rows: int, tokens_of: Callable[[int], int], *, gpu: bool) -> int:
    """Return the rows of one pass: a divisor of `rows`, whose tokens fit the memory; the rest accumulates.

    `tokens_of` tells how many tokens so many rows may have in memory.
    """
    bound = _TOKENS_IN_MEMORY["cuda" if gpu else "cpu"]
    return max((size for size in range(1, rows + 1) if rows % size == 0 and tokens_of(size) <= bound), default=1)
