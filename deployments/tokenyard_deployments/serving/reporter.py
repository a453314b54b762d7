"""Sends usage reports to Redis and loses none: what Redis does not take goes to a file on disk, and is sent again."""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import ReplicaReported, decode_event, encode_event

_LOG = logging.getLogger(__name__)
FIELD = b"event"
COMMAND_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
REPLAY_INTERVAL_S = 1.0
# Redis syncs its file each second; what it acknowledged just before a crash may be gone.
RESEND_WITHIN_S = 5.0
MAX_SPOOL_BYTES = 64 << 20


class Reporter:
    """One for each replica. Every report is sent at least once; readers drop duplicates."""

    def __init__(self, redis_url: str, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        # Without retries of its own: a lost connection may mean that Redis has lost what it took last.
        self._redis = Redis.from_url(
            redis_url, socket_timeout=COMMAND_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S, retry=None
        )
        self._spool = Spool(folder)
        self._now = now
        self._recent: deque[tuple[float, ReplicaReported]] = deque()
        self._run_id: str | None = None
        self._unsaved: list[ReplicaReported] = []  # neither Redis nor the disk took them
        self._sending: set[asyncio.Task[None]] = set()
        self._replaying: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send what is on disk, also from replicas that are gone."""
        self._replaying = asyncio.create_task(self._replay_for_ever(), name="replay usage reports")

    @property
    def full(self) -> bool:
        """Tell whether the disk holds as much as it may: then no new work must be taken."""
        return self._spool.size >= MAX_SPOOL_BYTES or bool(self._unsaved)

    def report(self, event: ReplicaReported) -> None:
        """Send `event` in the background; no cancellation of the caller reaches it."""
        self._in_background(self._send(event))

    async def close(self) -> None:
        """Wait until everything is sent or on disk."""
        if self._replaying is not None:
            self._replaying.cancel()
        if self._sending:
            await asyncio.wait(self._sending, timeout=2 * COMMAND_TIMEOUT_S)
        await self._redis.aclose()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, event: ReplicaReported) -> None:
        try:
            await self._add(event)
        except (RedisError, OSError) as error:
            _LOG.warning("usage report of %s goes to disk: %r", event.claims.attempt, error)
            await self._save([event, *self._take_recent()])

    async def _save(self, events: list[ReplicaReported]) -> None:
        try:
            await self._spool.append(events)
        except OSError:
            self._unsaved += events
            _LOG.exception("%d usage reports can be neither sent nor saved; no new work is taken", len(events))

    async def _add(self, event: ReplicaReported) -> None:
        stream = usage_stream(bucket_of(event.claims.organization))
        await self._redis.xadd(stream, {FIELD: encode_event(event)})
        self._recent.append((self._now(), event))

    def _take_recent(self) -> list[ReplicaReported]:
        """Return what Redis took lately, to be sent again."""
        since = self._now() - RESEND_WITHIN_S
        events = [event for at, event in self._recent if at >= since]
        self._recent.clear()
        return events

    async def _replay_for_ever(self) -> None:
        while True:
            try:
                await self._replay()
            except (RedisError, OSError) as error:
                _LOG.warning("Redis cannot take usage reports now: %r", error)
            await asyncio.sleep(REPLAY_INTERVAL_S)

    async def _replay(self) -> None:
        await self._notice_restart()
        while self._unsaved:
            await self._add(self._unsaved[0])
            self._unsaved.pop(0)
        for file in await self._spool.files():
            for event in await self._spool.read(file):
                await self._add(event)
            await self._spool.remove(file)

    async def _notice_restart(self) -> None:
        while self._recent and self._recent[0][0] < self._now() - RESEND_WITHIN_S:
            self._recent.popleft()
        if not self._recent and self._run_id is not None:
            return
        run_id = str((await self._redis.info("server"))["run_id"])
        if self._run_id not in (None, run_id):
            _LOG.warning("Redis was restarted: sending the last reports again")
            for event in self._take_recent():
                await self._send(event)
        self._run_id = run_id


class Spool:
    """Reports on disk, one JSON a line, synced before `append` returns."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = asyncio.Lock()
        self.size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))

    async def append(self, events: list[ReplicaReported]) -> None:
        """Write `events` to a file of their own."""
        data = b"".join(encode_event(event) + b"\n" for event in events)
        async with self._lock:
            await asyncio.to_thread(self._write, data)
            self.size += len(data)

    async def files(self) -> list[Path]:
        """Return the files, oldest first. Those of a replica that died are in the same folder."""
        return await asyncio.to_thread(lambda: sorted(self._folder.glob("*.jsonl")))

    async def read(self, file: Path) -> list[ReplicaReported]:
        """Return the reports of one file; nothing where another replica has just sent it."""
        return await asyncio.to_thread(_read, file)

    async def remove(self, file: Path) -> None:
        """Forget a file whose reports Redis has taken."""
        async with self._lock:
            await asyncio.to_thread(file.unlink, True)
            self.size = await asyncio.to_thread(lambda: sum(one.stat().st_size for one in self._folder.glob("*.jsonl")))

    def _write(self, data: bytes) -> None:
        target = self._folder / f"{time.time_ns():020d}-{uuid4().hex}.jsonl"
        partial = target.with_suffix(".partial")
        with partial.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.rename(partial, target)


def _read(file: Path) -> list[ReplicaReported]:
    try:
        events = [decode_event(line) for line in file.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError:
        _LOG.exception("%s is damaged and is put aside", file)
        file.rename(file.with_suffix(".damaged"))
        return []
    return [event for event in events if isinstance(event, ReplicaReported)]
