"""The transactional outbox: what was committed reaches its handler at least once, whoever dies and whatever fails."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from sqlalchemy import select

from support.fakes.clock import FrozenClock
from tokenyard.storage import transactional_outbox
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.storage.tables import OutboxRow
from tokenyard.storage.transactional_outbox import (
    BATCH,
    KEPT_MS,
    OWN_MS,
    OutboxMessage,
    TransactionalOutbox,
    write_message,
)


class Receiver:
    """Handles two topics, and writes down what it is given; a test may break it."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.dies_after = False

    async def take(self, payloads: Sequence[str]) -> None:
        for payload in payloads:
            if payload in self.broken:
                raise self.broken[payload]
        self.received += payloads
        if self.dies_after:
            raise ConnectionResetError("nobody learns that it was carried")


class Stand:
    """One outbox over a clock that stands still."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self.database = database
        self.redis = redis
        self.clock = FrozenClock()
        self.receiver = Receiver()
        self.outbox = self.another()

    def another(self, redis: Redis | None = None) -> TransactionalOutbox:
        """Another process with the same receiver."""
        handlers = {"fruit": self.receiver.take, "tools": self.receiver.take}
        return TransactionalOutbox(self.database, redis or self.redis, self.clock, handlers)

    async def committed(self, *payloads: str, topic: str = "fruit") -> list[OutboxMessage]:
        async with self.database.transaction() as session:
            return [await write_message(session, topic, payload.encode(), self.clock.now_ms()) for payload in payloads]

    async def left(self) -> list[str]:
        """Return the payloads that nobody has carried."""
        async with self.database.reading() as session:
            rows = await session.scalars(select(OutboxRow).order_by(OutboxRow.id))
            return [row.payload for row in rows if row.carried_to is None]

    async def later(self, seconds: float = OWN_MS / 1000) -> None:
        """Let time pass, and the loop take its turn."""
        self.clock.advance(seconds)
        await self.outbox.step()


@pytest.fixture
def stand(database: Database, redis: Redis) -> Stand:
    return Stand(database, redis)


async def test_what_its_committer_carries_the_loop_does_not(stand: Stand) -> None:
    messages = [*await stand.committed("apple", "pear"), *await stand.committed("saw", topic="tools")]
    await stand.outbox.carry(messages)
    await stand.later()
    assert stand.receiver.received == ["apple", "pear", "saw"]
    assert await stand.left() == []


async def test_the_loop_leaves_a_message_to_its_committer_for_a_moment_only(stand: Stand) -> None:
    await stand.committed("apple")
    await stand.another().step()
    assert stand.receiver.received == []
    await stand.later()
    assert stand.receiver.received == ["apple"]


async def test_what_was_rolled_back_is_never_carried(stand: Stand) -> None:
    async def fail() -> None:
        async with stand.database.transaction() as session:
            await write_message(session, "fruit", b"apple", stand.clock.now_ms())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await stand.later()
    assert stand.receiver.received == []


async def test_what_is_not_known_to_be_carried_is_carried_again(stand: Stand) -> None:
    messages = await stand.committed("apple")
    stand.receiver.dies_after = True
    with pytest.raises(ConnectionResetError):
        await stand.outbox.carry(messages)
    stand.receiver.dies_after = False
    await stand.later()
    assert stand.receiver.received == ["apple", "apple"]


async def test_a_backlog_is_carried_in_one_round(stand: Stand) -> None:
    names = [f"apple {number}" for number in range(2 * BATCH + 1)]
    await stand.committed(*names)
    await stand.later()
    assert sorted(stand.receiver.received) == sorted(names)


@pytest.mark.parametrize("error", [ValueError("cannot be read"), ResponseError("WRONGTYPE"), KeyError("unknown topic")])
async def test_a_message_that_fails_holds_up_no_other_and_is_tried_ever_less_often(
    stand: Stand, error: Exception
) -> None:
    await stand.committed("apple", "poison", "pear")
    stand.receiver.broken["poison"] = error
    await stand.later()
    assert sorted(stand.receiver.received) == ["apple", "pear"]
    tries: list[int] = []
    for second in range(30):
        before = await _due_at(stand)
        await stand.later(1)
        if await _due_at(stand) != before:
            tries.append(second)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert len(waits) >= 3
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
    del stand.receiver.broken["poison"]
    await stand.later(60)
    assert stand.receiver.received.count("poison") == 1
    assert await stand.left() == []


async def _due_at(stand: Stand) -> int:
    async with stand.database.reading() as session:
        row = await session.scalar(select(OutboxRow).where(OutboxRow.payload == "poison"))
        assert row is not None
        return row.due_at_ms


async def test_a_topic_that_this_process_does_not_know_waits_for_one_that_does(stand: Stand) -> None:
    await stand.committed("apple", "pear")
    await stand.committed("new", topic="of a later release")
    await stand.later()
    assert stand.receiver.received == ["apple", "pear"]
    assert await stand.left() == ["new"]


async def test_while_redis_is_away_everything_waits_and_nothing_is_blamed(stand: Stand) -> None:
    lost = connect_redis("redis://127.0.0.1:1/0")
    elsewhere = stand.another(lost)
    await elsewhere.try_to_carry(await stand.committed("apple"))
    stand.clock.advance(5)
    for _ in range(5):
        with pytest.raises(RedisConnectionError):
            await elsewhere.step()
    assert stand.receiver.received == []
    await stand.outbox.step()
    assert stand.receiver.received == ["apple"]
    await lost.aclose()


async def test_a_redis_that_takes_nothing_is_away(stand: Stand) -> None:
    """Once it takes writes again nothing must wait: a limit that was lowered meanwhile is among what is carried."""

    async def write(payloads: Sequence[str]) -> None:
        await stand.redis.mset(dict.fromkeys(payloads, 1))

    writing = TransactionalOutbox(stand.database, stand.redis, stand.clock, {"fruit": write})
    await stand.committed("apple")
    stand.clock.advance(5)
    await stand.redis.config_set("maxmemory", 1)
    try:
        for _ in range(5):
            with pytest.raises(OutOfMemoryError):
                await writing.step()
    finally:
        await stand.redis.config_set("maxmemory", 0)
    await writing.step()
    assert await stand.left() == []


async def test_who_committed_does_not_fail_by_a_handler_that_fails_or_hangs(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.receiver.broken["poison"] = ValueError("cannot be read")
    await stand.outbox.try_to_carry(await stand.committed("poison"))
    monkeypatch.setattr(transactional_outbox, "CARRY_LIMIT_S", 0.01)

    async def hang(_payloads: Sequence[str]) -> None:
        await asyncio.Event().wait()

    hanging = TransactionalOutbox(stand.database, stand.redis, stand.clock, {"fruit": hang})
    await hanging.try_to_carry(await stand.committed("apple"))
    assert await stand.left() == ["poison", "apple"]


async def test_carried_messages_are_kept_for_a_while_and_others_for_ever(stand: Stand) -> None:
    await stand.outbox.carry(await stand.committed("apple"))
    stand.receiver.broken["poison"] = ValueError("cannot be read")
    await stand.committed("poison")

    async def number() -> int:
        async with stand.database.reading() as session:
            return len((await session.scalars(select(OutboxRow))).all())

    await stand.later()
    await stand.outbox.clean()
    assert await number() == 2
    await stand.later(KEPT_MS / 1000)
    await stand.outbox.clean()
    assert await number() == 1
    await stand.later(24 * 3600)
    await stand.outbox.clean()
    assert await stand.left() == ["poison"]


async def test_any_number_of_processes_may_carry_at_once(stand: Stand) -> None:
    names = [f"apple {number}" for number in range(300)]
    messages = await stand.committed(*names)
    stand.clock.advance(OWN_MS / 1000)
    loops = [stand.another().step() for _ in range(3)]
    cleaning = [stand.another().clean() for _ in range(2)]
    await asyncio.gather(*loops, *cleaning, stand.outbox.carry(messages[::-1]))
    assert set(stand.receiver.received) == set(names)
    assert await stand.left() == []
