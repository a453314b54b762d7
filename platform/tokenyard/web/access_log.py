"""One JSON line for each request, written a few times a second: ids, counts and durations, never content or keys."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

import orjson

FLUSH_INTERVAL_S = 0.5
MAX_WAITING_LINES = 4096

_LOG = logging.getLogger(__name__)


class AccessLog:
    """Used as `async with`; `write` takes whole lines, and `sync` sends them off where `write` itself buffers.

    For standard output these are `sys.stdout.buffer.write` and `sys.stdout.buffer.flush`. Whoever reads them may be
    slow: so they are written in a thread, and lines beyond a bound are lost.
    """

    def __init__(self, write: Callable[[bytes], object], sync: Callable[[], object] = lambda: None) -> None:
        self._write = write
        self._sync = sync
        self._lines: list[bytes] = []
        self._lost = 0
        self._flusher: asyncio.Task[None] | None = None

    def add(self, entry: Mapping[str, object]) -> None:
        if len(self._lines) >= MAX_WAITING_LINES:
            self._lost += 1
        else:
            self._lines.append(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    async def __aenter__(self) -> "AccessLog":
        self._flusher = asyncio.create_task(self._flush_for_ever())
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        self._write_out(self._take())

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            if lines := self._take():
                await asyncio.to_thread(self._write_out, lines)

    def _take(self) -> bytes:
        lost, self._lost = self._lost, 0
        if lost:
            _LOG.error("%d lines of the access log were lost: it is read too slowly", lost)
        lines, self._lines = self._lines, []
        return b"".join(lines)

    def _write_out(self, lines: bytes) -> None:
        """Write lines. Those that cannot be written are lost, and the error log says so: requests go on."""
        if not lines:
            return
        try:
            self._write(lines)
            self._sync()
        except OSError as error:
            _LOG.error("%d lines of the access log could not be written: %s", lines.count(b"\n"), error)
