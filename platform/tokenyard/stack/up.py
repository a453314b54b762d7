"""`tokenyard up` and `down`: checks, starts, watches and stops the whole platform on this machine."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil

from tokenyard.settings import Settings
from tokenyard.stack import snippets
from tokenyard.stack.checks import ports_of, problems_with_disk, problems_with_memory, problems_with_ports
from tokenyard.stack.installation import StackFailed, child_environment, ensure_ray_token
from tokenyard.stack.processes.leftovers import end_last_run
from tokenyard.stack.processes.run_record import (
    RUN_VARIABLE,
    RunRecord,
    holder,
    locked,
    remove_record,
    write_record,
)
from tokenyard.stack.processes.supervisor import Supervisor
from tokenyard.stack.progress import Progress
from tokenyard.stack.startup import Startup

T = TypeVar("T")

STOP_LIMIT_S = 18.0
DOWN_LIMIT_S = 25.0
DOWN_POLL_S = 0.1
# Valkey goes last, because the others still write to it while they end.
STOP_ORDER = (("gateway",), ("worker", "dashboard", "ray"), ("valkey",))


async def start_everything(
    settings: Settings, environment: Mapping[str, str], supervisor: Supervisor, progress: Progress
) -> str:
    """Start all parts; return what to tell the operator."""
    keys = await Startup(settings, environment, supervisor, progress).run()
    return snippets.welcome(settings, keys.admin, keys.api)


Start = Callable[[Settings, Mapping[str, str], Supervisor, Progress], Coroutine[Any, Any, str]]


async def up(
    settings: Settings, progress: Progress, *, ignore_checks: bool = False, start: Start = start_everything
) -> None:
    """Run what `start` starts until a signal asks to stop.

    Raises:
        StackFailed: it cannot start, or a part of it cannot be kept alive.
    """
    began = time.monotonic()
    with locked(settings.data_dir), _stop_signal() as stop:
        if cleaned_up := end_last_run(settings.data_dir):
            progress.say(cleaned_up)
        _check(settings, progress, ignore=ignore_checks)
        run = RunRecord(secrets.token_hex(8), os.getpid())
        write_record(settings.data_dir, run)
        environment = child_environment(settings, {**os.environ, RUN_VARIABLE: run.id})
        if not settings.ray_url:
            ensure_ray_token(settings)
        supervisor = Supervisor(run.id, settings.data_dir.absolute() / "logs", progress)
        try:
            welcome = await _unless(stop, start(settings, environment, supervisor, progress))
            if welcome is not None:
                progress.say(f"\n{welcome}")
                progress.say(f"Ready in {time.monotonic() - began:.0f} s. Ctrl-C stops everything.", style="bold")
                await _until_over(stop, supervisor)
        finally:
            await _stop(supervisor, progress)
            remove_record(settings.data_dir)


def _check(settings: Settings, progress: Progress, *, ignore: bool) -> None:
    problems = problems_with_ports(ports_of(settings))
    shortages = problems_with_memory(settings) + problems_with_disk(settings.data_dir)
    if ignore:
        for shortage in shortages:
            progress.warn(f"{shortage} Going on, as asked.")
    else:
        problems += shortages
    if problems:
        raise StackFailed("\n".join(problems))


@contextmanager
def _stop_signal() -> Iterator[asyncio.Event]:
    """Yield an event that is set by Ctrl-C, by SIGTERM, and when the terminal goes away."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, stopped):
            each.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _until_over(stop: asyncio.Event, supervisor: Supervisor) -> None:
    stopped = asyncio.ensure_future(stop.wait())
    either: set[asyncio.Future[Any]] = {stopped, supervisor.failed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if supervisor.failed.done():
        raise StackFailed(supervisor.failed.result())


async def _stop(supervisor: Supervisor, progress: Progress) -> None:
    with progress.step("Stopping"):
        try:
            await asyncio.wait_for(supervisor.stop(*STOP_ORDER), STOP_LIMIT_S)
        except TimeoutError:
            progress.warn("Stopping took too long; ending what is left by force.")
            await asyncio.to_thread(supervisor.end_by_force)


def down(settings: Settings) -> str:
    """Stop what runs on the data folder, or end what a dead run left behind; return what was done.

    Raises:
        StackFailed: the running copy does not stop.
    """
    pid = holder(settings.data_dir)
    if not pid:
        return end_last_run(settings.data_dir) or f"Nothing runs on {settings.data_dir}."
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_LIMIT_S
    while holder(settings.data_dir) == pid and psutil.pid_exists(pid):
        if time.monotonic() > deadline:
            raise StackFailed(f"Process {pid} did not stop within {DOWN_LIMIT_S:.0f} s; see its terminal or logs.")
        time.sleep(DOWN_POLL_S)
    return f"Stopped (process {pid})."
