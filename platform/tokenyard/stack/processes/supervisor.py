"""Starts parts, watches them, starts a dead one again a bounded number of times, and stops them all in order."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tokenyard.stack.installation import StackFailed
from tokenyard.stack.processes.child import Child, Part
from tokenyard.stack.processes.leftovers import end_processes
from tokenyard.stack.processes.probes import until_ready
from tokenyard.stack.progress import Progress

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 10.0
# A part that ran this long was well: its restarts count anew.
FORGIVEN_AFTER_S = 600.0

AfterRestart = Callable[[], Awaitable[None]]


class Supervisor:
    """Holds the children of one run. `failed` is done (with the reason) when one cannot be kept alive."""

    def __init__(self, run: str, logs: Path, progress: Progress) -> None:
        self._run = run
        self._logs = logs
        self._progress = progress
        self._children: dict[str, Child] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self, part: Part, *, after_restart: AfterRestart | None = None) -> None:
        """Start a part and watch it from now on; use `ready` to wait for it."""
        child = Child(part, self._logs / f"{part.name}.log")
        self._children[part.name] = child
        await child.start()
        self._watchers[part.name] = asyncio.create_task(self._watch(child, after_restart), name=f"watch {part.name}")

    async def ready(self, name: str, on_wait: Callable[[str], None] = lambda _missing: None) -> None:
        """Wait until the part is ready.

        Raises:
            StackFailed: it died, or was not ready in time.
        """
        child = self._children[name]
        part = child.part
        try:
            await self.unless_failed(until_ready(part.probe, limit_s=part.ready_limit_s, on_wait=on_wait))
        except TimeoutError as error:
            raise StackFailed(
                f"{name} was not ready within {part.ready_limit_s:.0f} s: {error}. Its log: {child.log}"
            ) from error

    async def unless_failed(self, work: Awaitable[None]) -> None:
        """Wait for `work`, but no longer than all parts can be kept alive.

        Raises:
            StackFailed: one cannot.
        """
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self.failed}
        done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task not in done:
            task.cancel()
            raise StackFailed(self.failed.result())
        task.result()

    async def _watch(self, child: Child, after_restart: AfterRestart | None) -> None:
        loop = asyncio.get_running_loop()
        restarts = 0
        while True:
            began = loop.time()
            how = await child.ended()
            if self._stopping:
                return
            if loop.time() - began > FORGIVEN_AFTER_S:
                restarts = 0
            restarts += 1
            if restarts > child.part.restarts:
                self._give_up(child, how)
                return
            backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (restarts - 1))
            self._progress.warn(
                f"{child.part.name} {how}; starting it again in {backoff_s:.1f} s"
                f" ({restarts} of {child.part.restarts}). Its log: {child.log}"
            )
            await asyncio.sleep(backoff_s)
            try:
                await self._restart(child, after_restart)
            except (OSError, TimeoutError, StackFailed) as error:
                self._give_up(child, f"could not be started again: {error}")
                return

    async def _restart(self, child: Child, after_restart: AfterRestart | None) -> None:
        part = child.part
        if part.has_descendants:
            await asyncio.to_thread(end_processes, self._run, part.name, grace_s=0)
        await child.start()
        if after_restart is None:
            return
        ready = asyncio.ensure_future(until_ready(part.probe, limit_s=part.ready_limit_s))
        ended = asyncio.ensure_future(child.ended())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                await after_restart()
        finally:
            ready.cancel()
            ended.cancel()

    def _give_up(self, child: Child, how: str) -> None:
        if not self.failed.done():
            end = child.last_lines()
            tail = f" and ends with:\n{end}" if end else ""
            self.failed.set_result(f"{child.part.name} {how}. Its log is {child.log}{tail}")

    async def stop(self, *waves: tuple[str, ...]) -> None:
        """Stop all children, wave after wave (those not named go first), then whatever of the run is left."""
        self._stopping = True
        named = {name for wave in waves for name in wave}
        for wave in (tuple(self._children.keys() - named), *waves):
            await asyncio.gather(*(self._stop_child(name) for name in wave if name in self._children))
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await asyncio.to_thread(end_processes, self._run, grace_s=0)

    def end_by_force(self) -> None:
        """End every process of the run at once."""
        end_processes(self._run, grace_s=0)

    async def _stop_child(self, name: str) -> None:
        child = self._children[name]
        await child.stop(child.part.stop_grace_s)
        if child.part.has_descendants:
            await asyncio.to_thread(end_processes, self._run, name, grace_s=0)
