"""Finds and ends the processes of one run, by the run id in their environment, and no others."""

import time
from pathlib import Path

import psutil

from tokenyard.stack.processes.run_record import PART_VARIABLE, RUN_VARIABLE, read_record, remove_record


def processes_of(run: str, part: str | None = None) -> list[psutil.Process]:
    """Return the living processes of a run, or of one part of it; never the caller itself."""
    found = []
    for process in psutil.process_iter():
        if process.pid == psutil.Process().pid:
            continue
        try:
            environment = process.environ()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
            continue
        if alive and environment.get(RUN_VARIABLE) == run and part in (None, environment.get(PART_VARIABLE)):
            found.append(process)
    return found


def end_processes(run: str, part: str | None = None, *, grace_s: float, limit_s: float = 5.0) -> int:
    """End them: politely, then after `grace_s` by force, again and again while new ones appear; return how many."""
    seen: set[int] = set()
    deadline = time.monotonic() + grace_s + limit_s
    left = processes_of(run, part)
    if grace_s > 0:
        _signal(left, hard=False)
        seen.update(process.pid for process in left)
        psutil.wait_procs(left, timeout=grace_s)
        left = processes_of(run, part)
    while left and time.monotonic() < deadline:
        _signal(left, hard=True)
        seen.update(process.pid for process in left)
        psutil.wait_procs(left, timeout=1)
        left = processes_of(run, part)
    return len(seen)


def end_last_run(data_dir: Path) -> str | None:
    """End what a run of this data folder left when it died; return what was done, None where there was no such run."""
    record = read_record(data_dir)
    if record is None:
        return None
    ended = end_processes(record.id, grace_s=3.0)
    remove_record(data_dir)
    return f"Ended {ended} processes that a run which died (process {record.pid}) had left."


def _signal(processes: list[psutil.Process], *, hard: bool) -> None:
    for process in processes:
        try:
            if hard:
                process.kill()
            else:
                process.terminate()
        except psutil.NoSuchProcess:
            continue
