"""Runs the Lua scripts; calls that are made while a round trip to their server is under way share the next one."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib import resources
from typing import Any, NamedTuple, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, NoScriptError, RedisClusterException, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenyard.metering.cluster import ClusterRedis
from tokenyard.metering.round_trips import RoundTripPool

MAX_WAITING = 10_000  # for one server
BATCH = 100  # bounds how long one round trip keeps Redis from others
TRIP_TIMEOUT_S = 2.5  # all attempts together, so that a Redis that hangs is found out once and not again and again

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
_CHANGES = ("windows", "scopes", "spending", "requests")
_ENDS = (*_CHANGES, "leaving")
_PARTS = {
    ScriptName.ADMIT: ("windows", "requests"),
    ScriptName.SETTLE: _ENDS,
    ScriptName.RENEW: _CHANGES,
    ScriptName.SWEEP: _ENDS,
    ScriptName.RELEASE: _ENDS,
    ScriptName.DECIDE: _ENDS,
    ScriptName.LEDGER: ("spending",),
    ScriptName.HOLDS: ("requests",),
}
_CONSTANT = re.compile(r"^local ([A-Z_]+) = (\d+|'[^']*')(?: *--.*)?\n", re.M)


class ScriptsBusy(RedisError):
    """Too many calls already wait for Redis."""


class _Call(NamedTuple):
    script: ScriptName
    tag: str
    arguments: Sequence[Argument]
    done: "asyncio.Future[Any]"
    left: Callable[[], None] | None


class _Lane:
    """The calls to one server: those to another do not wait for them."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()  # to ask for it at each call would cost a system call
        self.waiting: deque[_Call] = deque()
        self.trip: asyncio.Task[None] | None = None
        self.departure: asyncio.TimerHandle | None = None


class Scripts:
    """The scripts on one Redis. Every one of them may be run twice with the same effect as once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._texts = {name: script_text(name) for name in ScriptName}
        # Redis names a script by its SHA-1; nothing is secured by it.
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }
        self._cluster = redis if isinstance(redis, ClusterRedis) else None
        self._lanes: dict[Redis, _Lane] = {}

    async def run(self, script: ScriptName, tag: str, arguments: Sequence[Argument]) -> Any:
        """Run one script on the bucket whose tag is `tag`; return its reply.

        Raises:
            RedisError: not run, or not known to be; ScriptsBusy where too many wait.
        """
        return await self.start(script, tag, arguments)

    def start(
        self,
        script: ScriptName,
        tag: str,
        arguments: Sequence[Argument],
        *,
        wait_s: float = 0.0,
        left: Callable[[], None] | None = None,
    ) -> "asyncio.Future[Any]":
        """Do as `run` does, but return at once what will hold the reply or a RedisError.

        For so long it may wait for others to go with. Where what is returned is cancelled the script may run all the
        same: when that is over, `left` is called.
        """
        lane = self._lane(tag)
        done = lane.loop.create_future()
        if len(lane.waiting) >= MAX_WAITING:
            done.set_exception(ScriptsBusy("too many calls wait for Redis"))
            return done
        lane.waiting.append(_Call(script, tag, arguments, done, left))
        if not wait_s:
            self._depart(lane)
        elif lane.trip is None and lane.departure is None:
            lane.departure = lane.loop.call_later(wait_s, self._depart, lane)
        return done

    def _depart(self, lane: _Lane) -> None:
        if lane.departure is not None:
            lane.departure.cancel()
            lane.departure = None
        if lane.waiting and lane.trip is None:
            lane.trip = lane.loop.create_task(self._travel(lane))
            lane.trip.add_done_callback(lambda _done: self._arrive(lane))

    def _arrive(self, lane: _Lane) -> None:
        lane.trip = None
        self._depart(lane)

    def _lane(self, tag: str) -> _Lane:
        client = self._redis
        if self._cluster is not None:
            client = self._cluster.client_of(tag) or client
        lane = self._lanes.get(client)
        if lane is None:
            lane = self._lanes[client] = _Lane(client)
        return lane

    async def _travel(self, lane: _Lane) -> None:
        waiting = lane.waiting
        while waiting:
            calls = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            try:
                async with asyncio.timeout(TRIP_TIMEOUT_S):
                    replies = await self._send(lane, calls)
            except (TimeoutError, RedisTimeoutError):
                # Those that wait behind these calls need not wait as long once more.
                calls += waiting
                waiting.clear()
                _finish(calls, [RedisTimeoutError("Redis does not answer in time")] * len(calls))
                await self._learn()
            except asyncio.CancelledError:  # the process is ending
                for call in calls:
                    call.done.cancel()
                raise
            except Exception as error:
                _finish(calls, [error] * len(calls))
                if not isinstance(error, (RedisError, OSError)):
                    raise
                await self._learn()
            else:
                _finish(calls, replies)

    async def _send(self, lane: _Lane, calls: Sequence[_Call]) -> list[Any]:
        if lane.client is self._cluster:  # nobody knows yet who has what
            return await self._send_apart(calls)
        pool = cast(RoundTripPool, lane.client.connection_pool)
        replies = await pool.round_trip([_packed(self._by_digest(call)) for call in calls])
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await pool.round_trip([_packed(self._by_text(calls[at])) for at in unknown])
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
        if self._cluster is not None:
            await self._cluster.learn()

    def _by_digest(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVALSHA", self._digests[call.script], 1, call.tag, *call.arguments)

    def _by_text(self, call: _Call) -> tuple[Argument, ...]:
        return ("EVAL", self._texts[call.script], 1, call.tag, *call.arguments)


def _packed(command: tuple[Any, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)
    return packed


def _finish(calls: Sequence[_Call], replies: Sequence[Any]) -> None:
    for call, reply in zip(calls, replies, strict=True):
        if call.done.done():  # its caller was cancelled
            if call.left is not None:
                call.left()
            continue
        if isinstance(reply, BaseException):
            call.done.set_exception(_as_redis_error(reply))
        else:
            call.done.set_result(reply)


def _as_redis_error(error: BaseException) -> RedisError:
    if isinstance(error, RedisError):
        return error
    kind = RedisConnectionError if isinstance(error, (OSError, RedisClusterException)) else RedisError
    return kind(f"Redis cannot be reached: {type(error).__name__}")


def script_text(name: ScriptName) -> str:
    """Return the script with the parts that it is made of.

    Constants stand where they are used: one that a function had to reach for would cost at every call of the script.
    """
    folder = resources.files(__package__) / "lua"
    parts = ("bucket", *_PARTS.get(name, ()), name)
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    constants: dict[str, str] = dict(_CONSTANT.findall(text))
    return re.sub(r"\b[A-Z_]+\b", lambda word: constants.get(word[0], word[0]), _CONSTANT.sub("", text))
