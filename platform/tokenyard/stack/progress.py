"""Tells the operator what happens: plain lines, or with colour and a spinner where a person watches."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console

HEARTBEAT_S = 15.0


class Step:
    """A step under way; `detail` is shown beside it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.detail = ""
        self.began = time.monotonic()

    def show(self, detail: str) -> None:
        self.detail = detail

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Progress:
    """Prints whole lines, flushed, in the order of events."""

    def __init__(self, stream: TextIO = sys.stdout, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._heartbeat_s = heartbeat_s

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
        if self.is_terminal:
            with self._console.status(what) as status, _ticking(1.0, lambda: status.update(_line(step))):
                yield step
            self._console.print(f"[green]done[/green]  {what}  [dim]{step.seconds:.0f} s[/dim]")
            return
        self.say(f"{what} ...")
        with _ticking(self._heartbeat_s, lambda: self.say(f"  {_line(step)}")):
            yield step
        self.say(f"{what}: done in {step.seconds:.0f} s")


def _line(step: Step) -> str:
    detail = f": {step.detail}" if step.detail else ""
    return f"{step.what}{detail} ({step.seconds:.0f} s)"


@contextmanager
def _ticking(every_s: float, tick: Callable[[], None]) -> Iterator[None]:
    # A thread, because a step may block or await: its progress must be seen in both cases.
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            tick()

    thread = threading.Thread(target=run, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
