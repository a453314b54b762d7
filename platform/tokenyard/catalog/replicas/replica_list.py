"""The gateway's list of replicas, in memory: read twice a second, kept while Redis or the worker is away."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
from redis.exceptions import RedisError

from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.core.replica import Replica
from tokenyard.web.loops import is_cancelled

_LOG = logging.getLogger(__name__)
POLL_S = 0.5
EJECTED_FOR_S = 10.0
"""The longest ejection, should discovery itself be away."""
LOOKS_TO_RETURN = 2
"""The look under way when a replica was ejected may have begun before it failed."""


class _Ejection(msgspec.Struct):
    until: float
    looks: int = 0


class ReplicaList:
    """Used as `async with`. Reading it never waits."""

    def __init__(
        self, registry: ReplicaRegistry, *, poll_s: float = POLL_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._poll_s = poll_s
        self._now = now
        self._seen_at_ms = 0
        self._by_model: dict[str, tuple[Replica, ...]] = {}
        self._ejected: dict[str, _Ejection] = {}
        self._called_for: set[str] = set()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def __aenter__(self) -> "ReplicaList":
        await self.refresh()
        self._task = asyncio.create_task(self._poll(), name="replica list")
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def candidates(self, model: str) -> Sequence[Replica]:
        """Return the replicas of a base model that may get requests, in no order that means anything."""
        listed = self._by_model.get(model, ())
        if not self._ejected:
            return listed
        # Where every one was ejected, trying costs less than refusing everybody: one may have come back, or be well.
        return tuple(replica for replica in listed if not self._is_ejected(replica.name)) or listed

    def eject(self, name: str) -> None:
        """Stop offering a replica that was lost, while there is another, until discovery has seen it afresh."""
        self._ejected[name] = _Ejection(self._now() + EJECTED_FOR_S)

    def call_for(self, model: str) -> None:
        """Say with the next look that a replica of base model `model` is waited for."""
        self._called_for.add(model)

    async def looked(self) -> None:
        """Wait for the next look, whatever it finds."""
        await self._looked.wait()

    async def has_replicas(self) -> bool:
        """Tell whether anything can be served."""
        return any(self.candidates(model) for model in self._by_model)

    async def refresh(self) -> None:
        """Read the list now; where it cannot be read the last one stays."""
        try:
            snapshot = await self._registry.read()
        except (RedisError, OSError, msgspec.MsgspecError) as error:
            if not self._failing:
                _LOG.warning("the list of replicas cannot be read, the last one is used: %s", error)
            self._failing = True
            return
        self._failing = False
        if snapshot is not None and snapshot.at_ms != self._seen_at_ms:
            self._take(snapshot)

    def _take(self, snapshot: ReplicaSnapshot) -> None:
        self._seen_at_ms = snapshot.at_ms
        by_model: dict[str, list[Replica]] = {}
        for replica in snapshot.replicas:
            by_model.setdefault(replica.model, []).append(replica)
        self._by_model = {model: tuple(replicas) for model, replicas in by_model.items()}
        listed = {replica.name for replica in snapshot.replicas}
        for name, ejection in list(self._ejected.items()):
            ejection.looks = ejection.looks + 1 if name in listed else 0
            if ejection.looks >= LOOKS_TO_RETURN or self._now() >= ejection.until:
                del self._ejected[name]

    def _is_ejected(self, name: str) -> bool:
        ejection = self._ejected.get(name)
        if ejection is None:
            return False
        if self._now() < ejection.until:
            return True
        del self._ejected[name]
        return False

    async def _poll(self) -> None:
        while not is_cancelled():
            await asyncio.sleep(self._poll_s)
            try:
                await self.refresh()
                await self._call()
            except Exception:  # without this task the gateway would use an old list for ever
                _LOG.exception("reading the list of replicas failed")
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()

    async def _call(self) -> None:
        called_for, self._called_for = self._called_for, set()
        try:
            await self._registry.call_for(called_for)
        except (RedisError, OSError) as error:
            _LOG.warning("replicas of %s cannot be called for: %s", called_for, error)
