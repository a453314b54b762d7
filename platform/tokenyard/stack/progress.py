"""Tells the operator what happens: plain lines, or with colour and a spinner where a person watches."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console

HEARTBEAT_S = 15.0
SPINNER_TICK_S = 1.0


class Step:
    """A step under way; `detail` is shown beside it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.detail = ""
        self._began = time.monotonic()

    def show(self, detail: str) -> None:
        self.detail = detail

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.what}{detail} ({self.seconds:.0f} s)"


class Progress:
    """Prints whole lines, flushed, in the order of events. Steps may go on at the same time."""

    def __init__(self, stream: TextIO = sys.stdout, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._status = self._console.status("")
        self._heartbeat_s = heartbeat_s
        self._steps: list[Step] = []
        self._ticker: _Ticker | None = None

    @property
    def is_terminal(self) -> bool:
        return self._console.is_terminal

    def say(self, line: str = "", *, style: str | None = None) -> None:
        """Print one line (or block)."""
        self._console.print(line, style=style if self.is_terminal else None, markup=False)
        self._console.file.flush()

    def warn(self, line: str) -> None:
        """Print what the operator should not overlook."""
        self.say(line, style="bold red")

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show that `what` goes on, and at its end how long it took."""
        step = Step(what)
        if not self.is_terminal:
            self.say(f"{what} ...")
        self._begin(step)
        try:
            yield step
        finally:
            self._end(step)
        if self.is_terminal:
            self._console.print(f"[green]done[/green]  {what}  [dim]{step.seconds:.0f} s[/dim]")
        else:
            self.say(f"{what}: done in {step.seconds:.0f} s")

    def _begin(self, step: Step) -> None:
        self._steps.append(step)
        if self._ticker is None:
            self._ticker = _Ticker(SPINNER_TICK_S if self.is_terminal else self._heartbeat_s, self._show)

    def _end(self, step: Step) -> None:
        self._steps.remove(step)
        if self._ticker is not None and not self._steps:
            self._ticker.stop()
            self._ticker = None
            self._status.stop()

    def _show(self) -> None:
        going_on = ", ".join(map(str, self._steps))
        if self.is_terminal:
            self._status.update(going_on)
            self._status.start()
        else:
            self.say(f"  {going_on}")


class _Ticker:
    # A thread, because a step may block or await: its progress must be seen in both cases.
    def __init__(self, every_s: float, tick: Callable[[], None]) -> None:
        self._every_s = every_s
        self._tick = tick
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._tick()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
