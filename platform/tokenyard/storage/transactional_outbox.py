"""The transactional outbox: what a commit has to change in Redis stands in SQL with it, and is carried there.

Every message is carried at least once, in no particular order, so handlers may be repeated at any time. Who commits a
message carries it at once; the worker's loop carries what was left behind, and carries the last ones again when Redis
was restarted, because a Redis that comes back may lack its last second.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import BigInteger, Index, Integer, String, Text, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.core.clock import Clock
from tokenyard.storage.columns import UnixMs
from tokenyard.storage.database import Base, Database
from tokenyard.web.loops import Loop

_LOG = logging.getLogger(__name__)

INTERVAL_S = 0.25
OWN_MS = 500  # for so long a message is left to the process that committed it
KEPT_MS = 10_000  # Redis syncs its file every second: what it took longer ago than this is safe
BATCH = 200
MAX_BACKOFF_MS = 60_000


class OutboxRow(Base):
    """One message. `due_at_ms` is when the loop takes it next; `carried_at_ms` None: it was not carried yet."""

    __tablename__ = "storage_outbox"
    __table_args__ = (Index("storage_outbox_due", "carried_at_ms", "due_at_ms"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    topic: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    due_at_ms: Mapped[UnixMs]
    carried_at_ms: Mapped[int | None] = mapped_column(BigInteger)


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


class TransactionalOutbox:
    """`handlers` by topic. The carrying side of one process; any number of them may work at once."""

    def __init__(self, database: Database, redis: Redis, clock: Clock, handlers: Mapping[str, Handler]) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock
        self._handlers = handlers
        self._run_id = ""

    def loop(self) -> Loop:
        return Loop("outbox", self.step, INTERVAL_S)

    async def carry(self, messages: Sequence[OutboxMessage]) -> None:
        """Carry what was just committed, or raise what its handler raised: the loop will carry it then."""
        for topic in {message.topic for message in messages}:
            of_topic = [message for message in messages if message.topic == topic]
            await self._handlers[topic]([message.payload for message in of_topic])
            await self._note_carried(of_topic)

    async def try_to_carry(self, messages: Sequence[OutboxMessage]) -> None:
        """Carry what was just committed, or leave it to the loop where Redis is away."""
        try:
            await self.carry(messages)
        except RedisError as error:
            _LOG.warning("%d messages are carried later: %s", len(messages), error)

    async def step(self) -> None:
        """Carry what was left behind; drop what was carried long enough ago."""
        run_id = str((await self._redis.info("server"))["run_id"])
        if run_id != self._run_id:
            await self._renew_kept()
            self._run_id = run_id
        while len(await self._carry_due()) == BATCH:
            pass
        old = (OutboxRow.carried_at_ms < self._clock.now_ms() - KEPT_MS,)
        async with self._database.transaction() as session:
            await session.execute(delete(OutboxRow).where(*old))

    async def _renew_kept(self) -> None:
        async with self._database.transaction() as session:
            kept = update(OutboxRow).where(OutboxRow.carried_at_ms.is_not(None))
            await session.execute(kept.values(carried_at_ms=None, due_at_ms=0))

    async def _carry_due(self) -> Sequence[OutboxMessage]:
        due = OutboxRow.carried_at_ms.is_(None), OutboxRow.due_at_ms <= self._clock.now_ms()
        query = select(OutboxRow.id, OutboxRow.topic, OutboxRow.payload).where(*due)
        async with self._database.reading() as session:
            rows = (await session.execute(query.order_by(OutboxRow.due_at_ms, OutboxRow.id).limit(BATCH))).all()
        messages = [OutboxMessage(*row) for row in rows]
        try:
            await self.carry(messages)
        except RedisError:
            raise
        except Exception as error:
            _LOG.warning("%d messages failed, taking them one by one: %s", len(messages), error)
            for message in messages:
                await self._carry_alone(message)
        return messages

    async def _carry_alone(self, message: OutboxMessage) -> None:
        """Carry one message; one that fails for a reason of its own waits longer each time and holds up no other."""
        try:
            await self.carry([message])
        except RedisError:
            raise
        except Exception:
            _LOG.exception("message %d of %s cannot be carried", message.id, message.topic)
            async with self._database.transaction() as session:
                row = await session.get_one(OutboxRow, message.id)
                row.failures += 1
                row.due_at_ms = self._clock.now_ms() + min(MAX_BACKOFF_MS, OWN_MS * 2 ** min(row.failures, 10))

    async def _note_carried(self, messages: Sequence[OutboxMessage]) -> None:
        ids = [message.id for message in messages]
        async with self._database.transaction() as session:
            done = update(OutboxRow).where(OutboxRow.id.in_(ids))
            await session.execute(done.values(carried_at_ms=self._clock.now_ms()))
