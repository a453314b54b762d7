"""The list of replicas in Redis: the worker writes it whole, gateways and worker loops read it."""

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from tokenyard.core.redis_keys import REPLICAS, REPLICAS_ROUND
from tokenyard.core.replica import Replica


class Round(msgspec.Struct, frozen=True):
    """One look at all replicas. `number` changes with every look; `complete` means that Serve and all answered."""

    number: int
    at_ms: int
    complete: bool


class Board(msgspec.Struct, frozen=True):
    """The list as one look left it."""

    replicas: tuple[Replica, ...]
    round: Round


_ENCODER = msgspec.json.Encoder()
_REPLICA: msgspec.json.Decoder[Replica] = msgspec.json.Decoder(Replica)
_ROUND: msgspec.json.Decoder[Round] = msgspec.json.Decoder(Round)


class ReplicaBoard:
    """Readers see one look or another, never a mixture."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, replicas: Sequence[Replica], *, at_ms: int, complete: bool) -> None:
        """Replace the list.

        Raises:
            redis.RedisError: not published, or not known to be.
        """
        listed = {replica.name: _ENCODER.encode(replica) for replica in replicas}
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(REPLICAS)
            if listed:
                pipe.hset(REPLICAS, mapping=listed)  # type: ignore[arg-type]  # the stubs know no bytes
            # The time is the round's number: it grows, whichever worker looks.
            pipe.set(REPLICAS_ROUND, _ENCODER.encode(Round(at_ms, at_ms, complete)))
            await pipe.execute()

    async def read(self) -> Board | None:
        """Return the list, or None where Redis has never had one: an empty Redis does not mean no replicas.

        Raises:
            redis.RedisError: it cannot be read now.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hvals(REPLICAS)
            pipe.get(REPLICAS_ROUND)
            listed, look = await pipe.execute()
        if look is None:
            return None
        replicas = sorted((_REPLICA.decode(data) for data in listed), key=lambda replica: replica.name)
        return Board(tuple(replicas), _ROUND.decode(look))

    async def of(self, model: str) -> Sequence[Replica]:
        """Return the replicas of a base model that may get requests.

        Raises:
            redis.RedisError: it cannot be read now.
        """
        board = await self.read()
        return () if board is None else tuple(replica for replica in board.replicas if replica.model == model)
