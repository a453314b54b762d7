"""The list of replicas in Redis: the worker writes it whole, gateways and worker loops read it."""

import asyncio
from collections.abc import Collection, Sequence

import msgspec
from redis.asyncio import Redis

from tokenyard.core.redis_keys import REPLICAS, called_for
from tokenyard.core.replica import Replica

MAX_AGE_S = 10.0
CALLED_FOR_S = 5
"""So long a call for a replica counts, should nobody repeat it."""


class ReplicaSnapshot(msgspec.Struct, frozen=True):
    """The replicas that may get requests, as one look at unix milliseconds `at_ms` found them.

    A later look has a later time, whichever worker looks. `complete` means that Serve and every replica answered.
    """

    replicas: tuple[Replica, ...]
    at_ms: int
    complete: bool

    def is_current(self, now_ms: int) -> bool:
        """Tell whether the worker may act on it."""
        return now_ms - self.at_ms <= MAX_AGE_S * 1000


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[ReplicaSnapshot] = msgspec.json.Decoder(ReplicaSnapshot)


class ReplicaRegistry:
    """Readers see one look or another, never a mixture. Every method raises `redis.RedisError` where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, snapshot: ReplicaSnapshot) -> None:
        await self._redis.set(REPLICAS, _ENCODER.encode(snapshot))

    async def read(self) -> ReplicaSnapshot | None:
        """Return the list, or None where Redis has never had one: an empty Redis does not mean no replicas."""
        data = await self._redis.get(REPLICAS)
        return None if data is None else _DECODER.decode(data)

    async def call_for(self, models: Collection[str]) -> None:
        """Say that replicas of these base models are waited for; who waits on says so again."""
        await asyncio.gather(*(self._redis.set(called_for(model), 1, ex=CALLED_FOR_S) for model in models))

    async def called_for(self, models: Sequence[str]) -> Sequence[str]:
        """Return those of `models` that anybody waits for."""
        found = await asyncio.gather(*(self._redis.exists(called_for(model)) for model in models))
        return [model for model, called in zip(models, found, strict=True) if called]

    async def of(self, model: str) -> Sequence[Replica]:
        """Return the replicas of a base model that may get requests."""
        snapshot = await self.read()
        return () if snapshot is None else tuple(one for one in snapshot.replicas if one.model == model)
