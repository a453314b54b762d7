"""A client of a Redis or Valkey cluster: redis-py's own, and a plain client of each node for many commands at once.

redis-py's pipelines over a cluster fail together, and close every connection when one node is lost: the requests of
healthy shards must not feel that.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Self

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError

LEARN_INTERVAL_S = 0.5


class ClusterRedis(RedisCluster):
    """Use it like a `Redis` of which every command, and every part of a pipeline, names keys of one slot."""

    def reach_nodes_by(self, client: Callable[[str, int], Redis]) -> Self:
        """Take what makes a client of one node, by its host and port; to be called first."""
        self._client = client
        # Kept to the end, also of nodes that are gone: calls may be on their way, and nodes are few.
        self._clients: dict[tuple[str, int], Redis] = {}
        self._learned_at = 0.0
        return self

    async def primaries(self) -> Sequence[ClusterNode]:
        await self.initialize()
        return self.get_primaries()

    def client_of(self, key: str) -> Redis | None:
        """Return a client of the node that has `key`, as far as is known; None: the cluster has not been asked yet.

        It may answer that another node has it now; `execute_command` follows, and learns.
        """
        slots = self.nodes_manager.slots_cache.get(self.keyslot(key))
        if not slots:
            return None
        address = (slots[0].host, int(slots[0].port))
        if address not in self._clients:
            self._clients[address] = self._client(*address)
        return self._clients[address]

    async def learn(self) -> None:
        """Ask the cluster who has what, because a node does not answer; not too often, and without a word if it fails.

        Whoever sends a command next is told what is wrong.
        """
        now = time.monotonic()
        if now < self._learned_at + LEARN_INTERVAL_S:
            return
        self._learned_at = now
        with contextlib.suppress(RedisError, OSError):
            await self.nodes_manager.initialize()

    async def aclose(self) -> None:
        """Close what nobody uses now. redis-py calls this, too, when it has to look at the cluster anew."""
        pools = [client.connection_pool for client in self._clients.values()]
        await asyncio.gather(*(pool.disconnect(inuse_connections=False) for pool in pools))
        await super().aclose()
        # What `initialize` opened while it was to be done again.
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
