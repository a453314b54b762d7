"""The worker's look at the replicas, each second: who serves, holding which adapters, under which load."""

import asyncio
import logging
from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from tokenyard.catalog.ports import ReplicaControl, ServeTargets
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.replica import Replica, ReplicaLost, ReplicaState

_LOG = logging.getLogger(__name__)
SERVE_TIMEOUT_S = 3.0
STATS_TIMEOUT_S = 2.0
MISSES_ALLOWED = 2
"""A busy replica may miss so many looks in a row and stay on the list as it was last seen."""


class Discovery:
    """Publishes the replicas that answer.

    While Serve's controller is away its last answer is used: the replicas serve on without it. A replica that Serve
    no longer names is off the list at once; it gets no new requests, and what it streams goes on. But where Serve names
    none of a model, as its controller does after a restart until it has found them again, those that were there are
    asked themselves.
    """

    def __init__(
        self, serve: ServeTargets, replicas: ReplicaControl, registry: ReplicaRegistry, lease: WorkLease, clock: Clock
    ) -> None:
        self._serve = serve
        self._replicas = replicas
        self._registry = registry
        self._lease = lease
        self._clock = clock
        self._targets: Sequence[Replica] | None = None
        self._seen: dict[str, Replica] = {}
        self._misses: dict[str, int] = {}

    async def step(self) -> None:
        """Look once and publish, unless another worker does. Without Redis there is nobody to tell: look again soon."""
        try:
            await self._look()
        except RedisError as error:
            _LOG.warning("the list of replicas cannot be published: %s", error)

    async def _look(self) -> None:
        if not await self._lease.take():
            return
        known = await self._ask_serve()
        if self._targets is None:
            return  # a worker that just started and cannot ask Serve leaves the list as it was
        targets = self._targets
        states = await asyncio.gather(*(self._ask(target) for target in targets))
        listed = [self._listed(target, state) for target, state in zip(targets, states, strict=True)]
        names = {target.name for target in targets}
        self._seen = {name: replica for name, replica in self._seen.items() if name in names}
        self._misses = {name: count for name, count in self._misses.items() if name in names}
        await self._registry.publish(
            ReplicaSnapshot(
                replicas=tuple(replica for replica in listed if replica is not None),
                at_ms=self._clock.now_ms(),
                complete=known and all(state is not None for state in states),
            )
        )

    async def _ask_serve(self) -> bool:
        """Bring the targets up to date; return whether they are all that there are."""
        try:
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                named = await self._serve.targets()
        except (Unavailable, TimeoutError) as error:
            _LOG.warning("Serve's controller does not answer, its last list is used: %s", error)
            return False
        models = {target.model for target in named}
        unnamed = [target for target in await self._last_targets() if target.model not in models]
        serving = await asyncio.gather(*(self._serves(target) for target in unnamed))
        kept = [target for target, serves in zip(unnamed, serving, strict=True) if serves]
        if kept:
            _LOG.warning("Serve's controller names no replica of %s, but they serve", {one.model for one in kept})
        self._targets = [*named, *kept]
        return not kept

    async def _last_targets(self) -> Sequence[Replica]:
        if self._targets is not None:
            return self._targets
        published = await self._registry.read()
        return () if published is None else published.replicas

    async def _serves(self, target: Replica) -> bool:
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                serves = await self._replicas.serves(target)
        except (ReplicaLost, TimeoutError) as error:
            _LOG.info("replica %s does not answer: %s", target.name, error)
            return False
        if not serves:
            _LOG.info("replica %s says that it serves no more", target.name)
        return serves

    async def _ask(self, target: Replica) -> ReplicaState | None:
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                state = await self._replicas.stats(target)
        except (ReplicaLost, TimeoutError) as error:
            _LOG.info("replica %s does not answer: %s", target.name, error)
            return None
        if state.replica != target.name:
            _LOG.warning("at the address of replica %s is %s", target.name, state.replica)
            return None
        return state

    def _listed(self, target: Replica, state: ReplicaState | None) -> Replica | None:
        if state is not None:
            self._misses.pop(target.name, None)
            self._seen[target.name] = msgspec.structs.replace(
                target,
                adapters=state.adapters,
                running=state.running,
                waiting=state.waiting,
                slots=state.slots,
                waiting_tokens=state.waiting_tokens,
            )
            return self._seen[target.name]
        self._misses[target.name] = self._misses.get(target.name, 0) + 1
        if self._misses[target.name] > MISSES_ALLOWED:
            self._seen.pop(target.name, None)
        seen = self._seen.get(target.name)
        # The same name on another address is a replica we know nothing of yet.
        return seen if seen is not None and seen.url == target.url else None
