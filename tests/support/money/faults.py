"""Lets a process die, stall or fail at any step that it takes outside: a Redis command, an SQL statement, a commit.

A process that dies never goes on: no handler of it runs, nothing it began is finished. What its connections had open is
rolled back, as the databases do when a client is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, NamedTuple, Self

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisGone
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from tokenyard.metering.round_trips import RoundTripPool
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis

READS = frozenset({"EXISTS", "HMGET", "INFO", "TIME", "XINFO GROUPS", "XLEN", "XPENDING", "ZRANGEBYSCORE"})


class Fault(StrEnum):
    """What happens at a step; the last three leave the process alive."""

    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"
    REDIS_GONE = "Redis does not get the command"
    ANSWER_LOST = "Redis runs the command, its answer is lost"
    STALLS = "stalls, outside of transactions"


class Plan(NamedTuple):
    """The fault, and the first step (from 1) at which it may happen.

    `visible` counts only steps that leave something behind for others to see: what Redis writes, and commits. To die
    before any other step is to die before the next of these.
    """

    step: int
    fault: Fault
    visible: bool = False


class ProcessDied(BaseException):
    """Raised in what a dead process still tries while it is cleared away."""


class Steps:
    """Counts the steps of one process, and lets the planned fault happen."""

    def __init__(self) -> None:
        self.taken = 0
        self.dead = False
        self.signal: asyncio.Future[Fault] | None = None
        self._plan: Plan | None = None
        self._go_on = asyncio.Event()
        self._transactions = 0

    def begin(self, plan: Plan | None) -> "asyncio.Future[Fault]":
        """Count anew; return what tells that the process died or stalls."""
        self.taken, self._plan = 0, plan
        self.signal = asyncio.get_running_loop().create_future()
        return self.signal

    def resume(self) -> None:
        self._go_on.set()

    async def before(self, *, visible: bool, redis: bool = False, count: int = 1) -> int:
        """Return how many of `count` commands, sent at once, are to be run; after fewer than all the process dies."""
        if self.dead:
            raise ProcessDied
        plan = self._plan
        if plan is None or (plan.visible and not visible):
            return count
        if plan.fault is Fault.DIES_AFTER and self.taken >= plan.step:  # after a statement that ended
            await self.die()
        first, self.taken = self.taken + 1, self.taken + count
        if self.taken < plan.step:
            return count
        match plan.fault:
            case Fault.DIES_BEFORE if plan.step <= first:
                await self.die()
            case Fault.DIES_BEFORE:
                return plan.step - first
            case Fault.DIES_AFTER:
                return max(1, min(count, plan.step - first + 1))
            case Fault.REDIS_GONE if redis:
                self._plan = None
                raise RedisGone("the connection is lost")
            case Fault.STALLS if not self._transactions:
                await self._stall()
        return count

    async def after(self, *, redis: bool = False) -> None:
        if self.dead:
            raise ProcessDied
        plan = self._plan
        if plan is None or self.taken < plan.step:
            return
        if plan.fault in (Fault.DIES_BEFORE, Fault.DIES_AFTER):
            await self.die()
        elif plan.fault is Fault.ANSWER_LOST and redis:
            self._plan = None
            raise RedisGone("the connection is lost")

    async def die(self) -> None:
        """Never return."""
        self.dead = True
        self._tell(Fault.DIES_BEFORE)
        await asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """While one is open the process does not stall: it would keep all others out of the database."""
        plan, inner = self._plan, self._transactions
        if plan is not None and plan.fault is Fault.STALLS and self.taken + 1 >= plan.step and not inner:
            await self._stall()
        self._transactions += 1
        try:
            yield
        finally:
            self._transactions -= 1

    async def _stall(self) -> None:
        self._plan = None
        self._go_on.clear()
        self._tell(Fault.STALLS)
        await self._go_on.wait()
        if self.dead:
            raise ProcessDied

    def _tell(self, fault: Fault) -> None:
        if self.signal is not None and not self.signal.done():
            self.signal.set_result(fault)


class FragileRedis(Redis):
    """A process's client."""

    steps: Steps

    @classmethod
    def connected(cls, url: str, steps: Steps) -> Self:
        plain = connect_redis(url).connection_pool
        client = cls.from_pool(FragilePool(plain.connection_class, **plain.connection_kwargs, steps=steps))
        assert isinstance(client, cls)
        client.steps = steps
        return client

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await self.steps.before(redis=True, visible=str(args[0]) not in READS)
        reply = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py's has no types
        await self.steps.after(redis=True)
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "FragilePipeline":
        made = FragilePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.steps = self.steps
        return made


class FragilePool(RoundTripPool):
    """Scripts sent at once: the process may die when some of them are sent."""

    def __init__(self, *arguments: Any, steps: Steps, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._steps = steps

    async def round_trip(self, commands: Sequence[bytes]) -> list[Any]:
        run = await self._steps.before(redis=True, visible=True, count=len(commands))
        replies = await super().round_trip(commands[:run])
        await self._steps.after(redis=True)
        return replies


class FragilePipeline(Pipeline):
    """Commands sent at once: the process may die when some of them are sent. Reads alone are one step."""

    steps: Steps

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        names = {str(command[0][0]) for command in self.command_stack}
        if not names:
            return []
        count = 1 if names <= READS else len(self.command_stack)
        run = await self.steps.before(redis=True, visible=not names <= READS, count=count)
        if run < count:
            del self.command_stack[run:]
        replies: list[Any] = await super().execute(raise_on_error)
        await self.steps.after(redis=True)
        return replies


class FragileDatabase(Database):
    """A process's connections to SQL."""

    def __init__(self, url: str, steps: Steps) -> None:
        super().__init__(url)
        self._steps = steps
        engine = self.engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *_: await_only(steps.before(visible=False)))
        event.listen(engine, "commit", lambda *_: await_only(steps.before(visible=True)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._steps.transaction(), super().transaction() as session:
            yield session
        await self._steps.after()  # the commit

    @asynccontextmanager
    async def reading(self, *, statement_timeout_s: float | None = None) -> AsyncIterator[AsyncSession]:
        async with self._steps.transaction(), super().reading(statement_timeout_s=statement_timeout_s) as session:
            yield session
