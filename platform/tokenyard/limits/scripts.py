"""Runs the Lua scripts; calls made in the same turn of the event loop share one round trip."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

MAX_WAITING = 10_000
BATCH = 100  # bounds how long one round trip keeps Redis from others
TRIP_TIMEOUT_S = 2.5  # all attempts together, so that a Redis that hangs is found out once and not again and again
ROUND_TRIPS = 4  # at the same time, so that a slow answer does not hold up everything behind it

Argument = str | bytes | int


class ScriptName(StrEnum):
    """The scripts; `<name>.lua` beside this module."""

    ADMIT = "admit"
    SETTLE = "settle"
    RENEW = "renew"
    SWEEP = "sweep"
    RELEASE = "release"
    LEDGER = "ledger"
    DECIDE = "decide"
    REVISION = "revision"
    BUDGETS = "budgets"
    HOLDS = "holds"


class ScriptsBusy(RedisError):
    """Redis does not answer in time, or too many calls already wait for it."""


@dataclass
class _Call:
    script: ScriptName
    tag: str
    arguments: Sequence[Argument]
    done: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scripts:
    """The scripts on one Redis. Every one of them may be run twice with the same effect as once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._texts = {name: script_text(name) for name in ScriptName}
        # Redis names a script by its SHA-1; nothing is secured by it.
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }
        self._waiting: deque[_Call] = deque()
        self._trips: set[asyncio.Task[None]] = set()

    async def run(self, script: ScriptName, tag: str, arguments: Sequence[Argument]) -> Any:
        """Run one script on the bucket whose tag is `tag`; return its reply.

        Raises:
            RedisError: not run, or not known to be; ScriptsBusy where too many wait.
        """
        return await self.start(script, tag, arguments)

    def start(self, script: ScriptName, tag: str, arguments: Sequence[Argument]) -> "asyncio.Future[Any]":
        """Do as `run` does, but return at once what will hold the reply or a RedisError.

        Raises:
            ScriptsBusy: too many calls wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise ScriptsBusy("too many calls wait for Redis")
        call = _Call(script, tag, arguments)
        self._waiting.append(call)
        if len(self._trips) < ROUND_TRIPS:
            trip = asyncio.create_task(self._travel())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return call.done

    async def _travel(self) -> None:
        while self._waiting:
            calls = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                async with asyncio.timeout(TRIP_TIMEOUT_S):
                    replies = await self._send(calls)
            except (TimeoutError, RedisTimeoutError):
                # Those that wait behind these calls need not wait as long once more.
                calls += self._waiting
                self._waiting.clear()
                _finish(calls, [ScriptsBusy("Redis does not answer in time")] * len(calls))
            except BaseException as error:
                _finish(calls, [error] * len(calls))
                if not isinstance(error, (RedisError, OSError)):
                    raise
            else:
                _finish(calls, replies)

    async def _send(self, calls: Sequence[_Call]) -> list[Any]:
        if len(calls) == 1:  # the usual case of a quiet gateway, at half of a pipeline's cost
            return [await self._send_alone(calls[0])]
        replies = await self._send_together([self._by_digest(call) for call in calls])
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._send_together([self._by_text(calls[at]) for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return replies

    async def _send_alone(self, call: _Call) -> Any:
        execute: Any = self._redis.execute_command
        try:
            return await execute(*self._by_digest(call))
        except NoScriptError:
            return await execute(*self._by_text(call))

    async def _send_together(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    def _by_digest(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVALSHA", self._digests[call.script], 1, call.tag, *call.arguments)

    def _by_text(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVAL", self._texts[call.script], 1, call.tag, *call.arguments)


def _finish(calls: Sequence[_Call], replies: Sequence[Any]) -> None:
    for call, reply in zip(calls, replies, strict=True):
        if call.done.done():  # its caller was cancelled
            continue
        if isinstance(reply, BaseException):
            call.done.set_exception(_as_redis_error(reply))
        else:
            call.done.set_result(reply)


def _as_redis_error(error: BaseException) -> RedisError:
    return error if isinstance(error, RedisError) else RedisError(f"Redis cannot be reached: {type(error).__name__}")


def script_text(name: ScriptName) -> str:
    folder = resources.files(__package__)
    return "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("bucket", name))
