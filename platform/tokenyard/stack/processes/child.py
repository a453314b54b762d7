"""One child process in its own session, with its output in its own log file."""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenyard.stack.processes.probes import Probe
from tokenyard.stack.processes.run_record import PART_VARIABLE

LOG_LIMIT_BYTES = 50 * 1024 * 1024
KILL_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Part:
    """A process of the stack. `probe` says when it is ready; `restarts` bounds how often it is started again."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    probe: Probe
    ready_limit_s: float = 30.0
    stop_grace_s: float = 5.0
    restarts: int = 5
    has_descendants: bool = False
    data_folders: tuple[Path, ...] = field(default=())


class Child:
    """A started part."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part = part
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, apart from our terminal: Ctrl-C there must reach only us."""
        for folder in self.part.data_folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.part.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self.part.environment, PART_VARIABLE: self.part.name},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> str:
        """Wait until it ends; return how, in words."""
        assert self._process is not None
        status = await self._process.wait()
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    async def stop(self, grace_s: float) -> None:
        """End it: politely, then its whole process group by force."""
        if not self.running:
            return
        assert self._process is not None
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.wait_for(self._process.wait(), KILL_TIMEOUT_S)

    def last_lines(self, count: int = 5) -> str:
        """Return the end of its log."""
        try:
            text = self.log.read_bytes()[-8192:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-count:])
