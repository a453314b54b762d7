"""Runs one training attempt as the control plane would, on a Ray of its own."""

import asyncio
import time
from pathlib import Path

import msgspec

from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.errors import Unavailable
from tokenyard.core.training import SPEC_FILE, RunState, TrainingSpec, submission_id

LIMIT_S = 1800.0


async def run_attempt(jobs: RayJobs, spec: TrainingSpec) -> Path:
    """Run it to its end, which must be a good one, and return its folder."""
    url = f"{spec.output_url}/{SPEC_FILE}"
    folder = Path(spec.output_url.removeprefix("file://"))
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / SPEC_FILE).write_bytes, msgspec.json.encode(spec))
    name = submission_id(spec.job, spec.attempt)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            await jobs.submit(name, f"python -m tokenyard_deployments.training.job {url}", metadata={})
            break
        except Unavailable:  # a head node that has just started has no agent yet
            await asyncio.sleep(0.5)
    while time.monotonic() < deadline:
        status = await jobs.status(name)
        if status is not None and not status.state.is_active:
            assert status.state is RunState.SUCCEEDED, status.message
            return folder
        await asyncio.sleep(0.5)
    raise AssertionError(f"the job did not end within {LIMIT_S:.0f} s")
