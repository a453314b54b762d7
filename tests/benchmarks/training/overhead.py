"""A step of our Ray Train job beside one of the bare loop, on the same rows, in turns."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.training.attempts import run_attempt
from benchmarks.training.rows import spec_of, write_rows
from support.ray_cluster.private_ray import private_ray
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.training import SPEC_FILE, TrainingEvent, TrainingSpec
from tokenyard_deployments.training.machine import worker_environment

STEPS, BATCH = 12, 8
LIMIT_S = 900.0


async def measure(folder: Path, base_model: Path, *, rounds: int) -> dict[str, float]:
    """Return the seconds of all steps but the first as medians over the rounds, and the one over the other."""
    rows = write_rows(folder / "rows.jsonl", STEPS * BATCH)
    ours: list[list[float]] = []
    bare: list[list[float]] = []
    with private_ray() as cluster:
        async with aiohttp.ClientSession() as session:
            jobs = RayJobs(session, cluster.url, cluster.token_file)
            for number in range(rounds):
                spec = spec_of(base_model, folder / str(number), rows, batch_size=BATCH, packing=False)
                await run_attempt(jobs, spec)
                ours.append(_steps(_event_times(folder / str(number))))
                bare.append(_steps(await asyncio.to_thread(_bare, spec, folder / str(number))))
    ours_s, bare_s = _sum_of_medians(ours), _sum_of_medians(bare)
    return {
        "step_overhead": round(ours_s / bare_s, 3),
        "step_s": round(ours_s / (STEPS - 1), 3),
        "bare_step_s": round(bare_s / (STEPS - 1), 3),
    }


def _steps(marks: list[float]) -> list[float]:
    assert len(marks) == STEPS, f"{len(marks)} of {STEPS} steps"
    return [end - begin for begin, end in pairwise(marks)]


def _sum_of_medians(rounds: list[list[float]]) -> float:
    steps: list[tuple[float, ...]] = list(zip(*rounds, strict=True))
    return sum(statistics.median(step) for step in steps)


def _event_times(folder: Path) -> list[float]:
    """Return when each step's event was written, which is when the step has ended."""
    files = sorted(folder.glob("events/*.json"))
    events = [(file, msgspec.json.decode(file.read_bytes(), type=TrainingEvent)) for file in files]
    return [file.stat().st_mtime for file, event in events if event.type == "metrics" and "train_loss" in event.data]


def _bare(spec: TrainingSpec, folder: Path) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.training.bare_loop", f"{folder}/{SPEC_FILE}", f"{folder}/marks.json"]
    environment = os.environ | worker_environment(spec.resources)
    subprocess.run(command, env=environment, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    found: list[float] = json.loads((folder / "marks.json").read_text())
    return found
