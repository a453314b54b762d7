"""The worker's hand on adapters: which replica holds which before anybody asks; those that have ended go."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import ReplicaControl
from tokenyard.catalog.replicas.demand import NEW_S, AdapterDemand, WantedAdapter, uses_of
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.spread import Demand, spread
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.catalog.store import Adapter
from tokenyard.core.clock import Clock
from tokenyard.core.replica import AdapterRefused, AdapterUses, Replica, ReplicaLost

_LOG = logging.getLogger(__name__)
LOADS_A_STEP = 4
LOAD_TIMEOUT_S = 60.0
UNLOAD_TIMEOUT_S = 10.0
RETRY_S = 5
MAX_RETRY_S = 300


class Placement:
    """Replicas load what they are asked for by themselves, and push out what was idle longest; this only goes ahead.

    It fills free places and never competes with what requests brought in. Two kinds alone push an idle one out: a
    pinned adapter, which then stays, and a new one, once. So it does not load again and again what it pushed out.
    """

    def __init__(
        self,
        *,
        store: CatalogOperatorStore,
        replicas: ReplicaControl,
        registry: ReplicaRegistry,
        lease: WorkLease,
        clock: Clock,
    ) -> None:
        self._store = store
        self._demand = AdapterDemand(store, clock)
        self._replicas = replicas
        self._registry = registry
        self._lease = lease
        self._clock = clock
        self._shown_ms: dict[str, int] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._not_before_ms: dict[tuple[str, str], int] = {}

    async def step(self) -> None:
        """Bring every replica one step nearer to what it should hold."""
        if not await self._lease.take():
            return
        snapshot = await self._registry.read()
        if snapshot is None or not snapshot.is_current(self._clock.now_ms()):
            return
        models = sorted({replica.model for replica in snapshot.replicas})
        await asyncio.gather(
            *(self._tend(model, [one for one in snapshot.replicas if one.model == model]) for model in models)
        )
        self._forget(snapshot)

    async def _tend(self, model: str, replicas: Sequence[Replica]) -> None:
        """Bring the replicas of one base model a step further; one that does not answer is left alone."""
        await asyncio.gather(*(self._unload_ended(replica) for replica in replicas))
        answers = await uses_of(replicas, self._replicas)
        answered = [(replica, uses) for replica, uses in answers if uses is not None]
        limit = sum(uses.places for _, uses in answered)
        if limit == 0:
            return
        wanted = {one.adapter.name: one for one in await self._demand.of(model, [uses for _, uses in answered], limit)}
        parts = spread(
            [Demand(name, one.rate) for name, one in wanted.items() if not one.pinned],
            {replica.name: replica.adapters for replica, _ in answered},
            {replica.name: max(0, uses.places - len(uses.pinned)) for replica, uses in answered},
        )
        held = {name for replica in replicas for name in replica.adapters}
        await asyncio.gather(
            *(
                self._prepare(replica, uses, _found(wanted, (*uses.pinned, *parts[replica.name])), held)
                for replica, uses in answered
            )
        )

    async def _prepare(
        self, replica: Replica, uses: AdapterUses, part: Sequence[WantedAdapter], held: Collection[str]
    ) -> None:
        """Load what a replica is to have, the most important first; `held` is what any replica holds."""
        free, loads = uses.places - len(replica.adapters), 0
        try:
            for one in part:
                adapter = one.adapter
                if loads == LOADS_A_STEP:
                    return
                if adapter.name in replica.adapters or not self._may_try(replica, adapter):
                    continue
                if free <= 0 and adapter.name not in uses.pinned and not self._is_to_be_shown(one, held):
                    continue
                loads += 1
                free -= 1
                self._shown_ms[adapter.name] = self._clock.now_ms()
                await self._load(replica, adapter)
        except (ReplicaLost, AdapterRefused, TimeoutError) as error:
            _LOG.info("replica %s does not answer: %s", replica.name, error)

    def _is_to_be_shown(self, one: WantedAdapter, held: Collection[str]) -> bool:
        return one.new and one.adapter.name not in held and one.adapter.name not in self._shown_ms

    async def _unload_ended(self, replica: Replica) -> None:
        if not replica.adapters:
            return
        for name in sorted(set(replica.adapters) - await self._store.may_be_resident(replica.adapters)):
            try:
                async with asyncio.timeout(UNLOAD_TIMEOUT_S):
                    await self._replicas.unload(replica, name)
                _LOG.info("unloaded %s from %s", name, replica.name)
            except (AdapterRefused, ReplicaLost, TimeoutError) as error:
                _LOG.info("%s stays on %s for now: %s", name, replica.name, error)

    async def _load(self, replica: Replica, adapter: Adapter) -> None:
        key = (replica.name, adapter.name)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self._replicas.load(replica, adapter.ref)
        except (AdapterRefused, TimeoutError) as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            wait_s = min(MAX_RETRY_S, RETRY_S * 2 ** self._failures[key])
            self._not_before_ms[key] = self._clock.now_ms() + wait_s * 1000
            _LOG.warning("%s does not load on %s, next try in %d s: %s", adapter.name, replica.name, wait_s, error)
        else:
            self._failures.pop(key, None)
            # The list shows it only after the next look.
            self._not_before_ms[key] = self._clock.now_ms() + RETRY_S * 1000
            _LOG.info("loaded %s on %s", adapter.name, replica.name)

    def _may_try(self, replica: Replica, adapter: Adapter) -> bool:
        return self._clock.now_ms() >= self._not_before_ms.get((replica.name, adapter.name), 0)

    def _forget(self, snapshot: ReplicaSnapshot) -> None:
        names = {replica.name for replica in snapshot.replicas}
        now_ms = self._clock.now_ms()
        self._shown_ms = {name: at for name, at in self._shown_ms.items() if now_ms - at < NEW_S * 1000}
        for key in [
            key for key, at in self._not_before_ms.items() if key[0] not in names or now_ms > at + MAX_RETRY_S * 1000
        ]:
            del self._not_before_ms[key]
            self._failures.pop(key, None)


def _found(wanted: Mapping[str, WantedAdapter], names: Iterable[str]) -> list[WantedAdapter]:
    return [wanted[name] for name in names if name in wanted]
