"""Runs the Lua scripts; calls made in the same turn of the event loop share one round trip to their server."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, NoScriptError, RedisError, TryAgainError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenyard.metering.cluster import ClusterRedis

MAX_WAITING = 10_000  # for one server
BATCH = 100  # bounds how long one round trip keeps Redis from others
TRIP_TIMEOUT_S = 2.5  # all attempts together, so that a Redis that hangs is found out once and not again and again
ROUND_TRIPS = 4  # at the same time, so that a slow answer does not hold up everything behind it

Argument = str | bytes | int

_REDIRECTIONS = (MovedError, AskError, TryAgainError)


class ScriptName(StrEnum):
    """The scripts; `lua/<name>.lua` beside this module."""

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


# What each script is made of besides its own text: the less, the sooner it begins.
_PARTS = {
    ScriptName.ADMIT: ("windows", "taking"),
    ScriptName.SETTLE: ("windows", "scopes", "pending", "leaving"),
    ScriptName.RENEW: ("windows", "scopes", "pending", "taking"),
    ScriptName.SWEEP: ("windows", "scopes", "pending", "leaving"),
    ScriptName.RELEASE: ("windows", "scopes", "pending", "leaving"),
    ScriptName.DECIDE: ("windows", "scopes", "pending", "leaving"),
    ScriptName.LEDGER: ("pending",),
}


class ScriptsBusy(RedisError):
    """Redis does not answer in time, or too many calls already wait for it."""


@dataclass
class _Call:
    script: ScriptName
    tag: str
    arguments: Sequence[Argument]
    done: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class _Lane:
    """The calls to one server: those to another do not wait for them."""

    client: Redis
    waiting: deque[_Call] = field(default_factory=deque)
    trips: set[asyncio.Task[None]] = field(default_factory=set)


class Scripts:
    """The scripts on one Redis. Every one of them may be run twice with the same effect as once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._texts = {name: script_text(name) for name in ScriptName}
        # Redis names a script by its SHA-1; nothing is secured by it.
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }
        self._lanes: dict[Redis, _Lane] = {}

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
        lane = self._lane(tag)
        if len(lane.waiting) >= MAX_WAITING:
            raise ScriptsBusy("too many calls wait for Redis")
        call = _Call(script, tag, arguments)
        lane.waiting.append(call)
        if len(lane.trips) < ROUND_TRIPS:
            trip = asyncio.create_task(self._travel(lane))
            lane.trips.add(trip)
            trip.add_done_callback(lane.trips.discard)
        return call.done

    def _lane(self, tag: str) -> _Lane:
        client = self._redis
        if isinstance(client, ClusterRedis):
            client = client.client_of(tag) or client
        lane = self._lanes.get(client)
        if lane is None:
            self._lanes = {known: lane for known, lane in self._lanes.items() if lane.waiting or lane.trips}
            lane = self._lanes[client] = _Lane(client)
        return lane

    async def _travel(self, lane: _Lane) -> None:
        waiting = lane.waiting
        while waiting:
            calls = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            try:
                async with asyncio.timeout(TRIP_TIMEOUT_S):
                    replies = await self._send(lane.client, calls)
            except (TimeoutError, RedisTimeoutError):
                # Those that wait behind these calls need not wait as long once more.
                calls += waiting
                waiting.clear()
                _finish(calls, [ScriptsBusy("Redis does not answer in time")] * len(calls))
                await self._learn()
            except BaseException as error:
                _finish(calls, [error] * len(calls))
                if not isinstance(error, (RedisError, OSError)):
                    raise
                await self._learn()
            else:
                _finish(calls, replies)

    async def _send(self, client: Redis, calls: Sequence[_Call]) -> list[Any]:
        if client is self._redis and isinstance(client, ClusterRedis):
            return await self._send_apart(calls)
        if len(calls) == 1 and client is self._redis:  # the usual case of a quiet gateway, at half of a pipeline's cost
            return [await self._send_alone(calls[0])]
        replies = await _send_together(client, [self._by_digest(call) for call in calls])
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await _send_together(client, [self._by_text(calls[at]) for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        moved = [at for at, reply in enumerate(replies) if isinstance(reply, _REDIRECTIONS)]
        if moved:
            for at, reply in zip(moved, await self._send_apart([calls[at] for at in moved]), strict=True):
                replies[at] = reply
        return replies

    async def _send_apart(self, calls: Sequence[_Call]) -> list[Any]:
        """Let the cluster's own client find out where each has to go."""
        return await asyncio.gather(*(self._send_alone(call) for call in calls), return_exceptions=True)

    async def _send_alone(self, call: _Call) -> Any:
        execute: Any = self._redis.execute_command
        try:
            return await execute(*self._by_digest(call))
        except NoScriptError:
            return await execute(*self._by_text(call))

    async def _learn(self) -> None:
        if isinstance(self._redis, ClusterRedis):
            await self._redis.learn()

    def _by_digest(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVALSHA", self._digests[call.script], 1, call.tag, *call.arguments)

    def _by_text(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVAL", self._texts[call.script], 1, call.tag, *call.arguments)


async def _send_together(client: Redis, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


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
    """Return the script with the parts that it is made of."""
    folder = resources.files(__package__) / "lua"
    parts = ("bucket", *_PARTS.get(name, ()), name)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
