"""The worker's hand on pinned adapters: which replica keeps which, within a second of a change of plans.

Apart from `Placement`, whose step takes as long as its loads. A replica keeps at most half of its places for them, so
that every other adapter can still be loaded.
"""

import asyncio
import logging
from collections.abc import Sequence

from tokenyard.catalog.adapters.hosting import Hosting
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import PinningPlans, ReplicaControl
from tokenyard.catalog.replicas.demand import uses_of
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.spread import Demand, spread
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.clock import Clock
from tokenyard.core.replica import AdapterUses, Replica, ReplicaLost

_LOG = logging.getLogger(__name__)
PIN_TIMEOUT_S = 2.0


class Pinning:
    """Tells replicas what to keep, and notes what they do keep: by that, hours of hosting are charged."""

    def __init__(
        self,
        *,
        plans: PinningPlans,
        store: CatalogOperatorStore,
        hosting: Hosting,
        replicas: ReplicaControl,
        registry: ReplicaRegistry,
        lease: WorkLease,
        clock: Clock,
    ) -> None:
        self._plans = plans
        self._store = store
        self._hosting = hosting
        self._replicas = replicas
        self._registry = registry
        self._lease = lease
        self._clock = clock

    async def step(self) -> None:
        """Bring the pins of every replica to what plans say."""
        if not await self._lease.take():
            return
        snapshot = await self._registry.read()
        if snapshot is None or not snapshot.is_current(self._clock.now_ms()):
            return
        wanted = await self._store.to_be_pinned(await self._plans.pinned_adapters())
        by_model: dict[str, list[Replica]] = {}
        for replica in snapshot.replicas:
            by_model.setdefault(replica.model, []).append(replica)
        kept = await asyncio.gather(
            *(self._tend(replicas, wanted.get(model, ())) for model, replicas in by_model.items())
        )
        names = {name for of_model in kept for of_one in of_model for name in of_one or ()}
        # What a replica keeps that does not answer is not known.
        known = snapshot.complete and all(of_one is not None for of_model in kept for of_one in of_model)
        await self._hosting.note_pins(names, all_known=known)

    async def _tend(self, replicas: Sequence[Replica], names: Sequence[str]) -> list[Sequence[str] | None]:
        """Return what each replica of a base model keeps now; None where it does not answer."""
        answers = await uses_of(replicas, self._replicas)
        answered = [(replica, uses) for replica, uses in answers if uses is not None]
        rates = {name: sum(uses.rates.get(name, 0.0) for _, uses in answered) for name in names}
        parts = spread(
            [Demand(name, rate) for name, rate in rates.items()],
            {replica.name: replica.adapters for replica, _ in answered},
            {replica.name: uses.places // 2 for replica, uses in answered},
        )
        return await asyncio.gather(
            *(self._pin(replica, uses, parts.get(replica.name, ())) for replica, uses in answers)
        )

    async def _pin(self, replica: Replica, uses: AdapterUses | None, names: Sequence[str]) -> Sequence[str] | None:
        if uses is None or uses.pinned == tuple(names):
            return None if uses is None else names
        try:
            async with asyncio.timeout(PIN_TIMEOUT_S):
                await self._replicas.pin(replica, names)
        except (ReplicaLost, TimeoutError) as error:
            _LOG.info("replica %s does not answer: %s", replica.name, error)
            return None
        _LOG.info("%s keeps %d pinned adapters", replica.name, len(names))
        return names
