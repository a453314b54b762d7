"""The transactional outbox: what a commit has to change in Redis stands in SQL with it, and is carried there.

Every message is carried at least once, in no particular order, so handlers may be repeated at any time. Who commits a
message carries it at once; the worker's loop carries what was left behind. Each message notes which run of Redis has
it, and stays for a while: a Redis that was restarted may lack its last second, so it is given the last ones again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec
from redis.asyncio import Redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.storage.database import Database
from tokenyard.storage.redis import current_run
from tokenyard.storage.tables import OutboxRow
from tokenyard.web.loops import Loop

_LOG = logging.getLogger(__name__)

INTERVAL_S = 0.25
MAX_LOOP_BACKOFF_S = 1.0  # a limit that was lowered while Redis was away must not wait long once it is back
OWN_MS = 500  # for so long a message is left to the process that committed it
CARRY_LIMIT_S = 2.0  # how long a request that changed something waits for Redis
KEPT_MS = 10_000  # Redis syncs its file every second: what it took longer ago than this is safe
CLEAN_S = 5.0
BATCH = 200
MAX_BACKOFF_MS = 60_000

_TAKES_NOTHING = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
_TAKES_NOTHING_CODES = ("MISCONF", "NOREPLICAS", "BUSY")  # its disk is full; a replica is lost; a script hangs


class OutboxMessage(msgspec.Struct, frozen=True):
    """A committed message: `topic` says who carries it, `payload` is JSON of that topic's own form."""

    id: int
    topic: str
    payload: str


Handler = Callable[[Sequence[str]], Awaitable[None]]
"""Carries the payloads of some messages of one topic; raises where one is not, or not known to be, carried."""


async def write_message(session: AsyncSession, topic: str, payload: bytes, at_ms: int) -> OutboxMessage:
    """Write a message in the caller's transaction; after the commit it is to be carried."""
    row = OutboxRow(topic=topic, payload=payload.decode(), failures=0, due_at_ms=at_ms + OWN_MS)
    session.add(row)
    await session.flush()
    return OutboxMessage(row.id, topic, row.payload)


def not_carried(run: str) -> ColumnElement[bool]:
    """Return what is true of the rows of messages that the run of Redis with this id may lack."""
    return or_(OutboxRow.carried_to.is_(None), OutboxRow.carried_to != run)


class TransactionalOutbox:
    """`handlers` by topic. The carrying side of one process; any number of them may work at once."""

    def __init__(self, database: Database, redis: Redis, clock: Clock, handlers: Mapping[str, Handler]) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock
        self._handlers = handlers

    def loops(self) -> list[Loop]:
        return [
            Loop("outbox", self.step, INTERVAL_S, max_backoff_s=MAX_LOOP_BACKOFF_S),
            Loop("outbox-cleaning", self.clean, CLEAN_S),
        ]

    async def carry(self, messages: Sequence[OutboxMessage]) -> None:
        """Carry what was just committed, or raise what its handler raised: the loop will carry it then."""
        if not messages:
            return
        run = await self._run_of_redis()  # before the handlers: what they wrote to an earlier run may be lost
        for of_topic in _by_topic(messages):
            await self._handlers[of_topic[0].topic]([message.payload for message in of_topic])
            await self._note_carried(of_topic, run)

    async def try_to_carry(self, messages: Sequence[OutboxMessage]) -> None:
        """Carry what was just committed, or leave it to the loop: the change stands, whatever happens here."""
        try:
            async with asyncio.timeout(CARRY_LIMIT_S):
                await self.carry(messages)
        except Exception as error:
            _LOG.warning("%d messages are carried later: %r", len(messages), error)

    async def step(self) -> None:
        """Carry what was left behind, and what Redis may have lost with its run before this one."""
        while len(await self._carry_due()) == BATCH:
            pass

    async def clean(self) -> None:
        """Delete what Redis has for good."""
        run = await self._run_of_redis()
        safe = OutboxRow.carried_to == run, OutboxRow.carried_at_ms < self._clock.now_ms() - KEPT_MS
        async with self._database.transaction() as session:
            await session.execute(delete(OutboxRow).where(*safe))

    async def _run_of_redis(self) -> str:
        return (await current_run(self._redis)).id

    async def _carry_due(self) -> Sequence[OutboxMessage]:
        run = await self._run_of_redis()
        due = OutboxRow.due_at_ms <= self._clock.now_ms(), not_carried(run)
        query = select(OutboxRow.id, OutboxRow.topic, OutboxRow.payload).where(*due)
        async with self._database.reading() as session:
            rows = (await session.execute(query.order_by(OutboxRow.due_at_ms, OutboxRow.id).limit(BATCH))).all()
        messages = [OutboxMessage(*row) for row in rows]
        for of_topic in _by_topic(messages):
            if not await self._is_carried(of_topic):
                for message in of_topic:
                    if not await self._is_carried([message]):
                        await self._put_off(message)
        return messages

    async def _is_carried(self, messages: Sequence[OutboxMessage]) -> bool:
        """Carry messages of one topic; tell whether that worked, and raise where Redis is away."""
        try:
            await self.carry(messages)
        except Exception as error:
            if _is_away(error):
                raise
            _LOG.exception("%d messages of %s cannot be carried", len(messages), messages[0].topic)
            return False
        return True

    async def _put_off(self, message: OutboxMessage) -> None:
        """Let a message that fails for a reason of its own wait longer each time, so that it holds up no other."""
        async with self._database.transaction() as session:
            row = await session.get(OutboxRow, message.id)
            if row is not None:
                row.failures += 1
                row.due_at_ms = self._clock.now_ms() + min(MAX_BACKOFF_MS, OWN_MS * 2 ** min(row.failures, 10))

    async def _note_carried(self, messages: Sequence[OutboxMessage], run: str) -> None:
        done = update(OutboxRow).where(OutboxRow.id.in_([message.id for message in messages]))
        async with self._database.transaction() as session:
            await session.execute(done.values(carried_to=run, carried_at_ms=self._clock.now_ms()))


def _by_topic(messages: Sequence[OutboxMessage]) -> Collection[Sequence[OutboxMessage]]:
    found: dict[str, list[OutboxMessage]] = {}
    for message in messages:
        found.setdefault(message.topic, []).append(message)
    return found.values()


def _is_away(error: Exception) -> bool:
    """Tell whether Redis cannot be reached or takes nothing; any other error that it answers is the message's fault."""
    if isinstance(error, ResponseError):
        return isinstance(error, _TAKES_NOTHING) or str(error).startswith(_TAKES_NOTHING_CODES)
    return isinstance(error, RedisError)
