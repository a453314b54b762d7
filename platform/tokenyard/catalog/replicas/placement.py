"""The worker's hand on adapters: load the newest before anybody asks, unload retired ones, then delete their files."""

import asyncio
import logging

from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import ReplicaControl
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.catalog.store import Adapter
from tokenyard.core.clock import Clock
from tokenyard.core.replica import AdapterRefused, Replica, ReplicaLost
from tokenyard.storage.blobs import BlobStore

_LOG = logging.getLogger(__name__)
LOADS_A_STEP = 4
LOAD_TIMEOUT_S = 60.0
UNLOAD_TIMEOUT_S = 10.0
NEW_S = 60.0
"""An adapter this young is loaded even where that pushes out an idle one."""
RETRY_S = 5
MAX_RETRY_S = 300
SNAPSHOT_MAX_AGE_S = 10.0
DELETE_AFTER_S = 15 * 60
"""No gateway's cache, however stale, asks for an adapter that has been retired this long."""
DELETES_A_STEP = 20


class Placement:
    """Replicas load what they are asked for by themselves, and push out what was idle longest; this only goes ahead.

    So it fills free places and never competes with what requests brought in.
    """

    def __init__(
        self,
        *,
        bases: BaseModels,
        store: CatalogOperatorStore,
        replicas: ReplicaControl,
        registry: ReplicaRegistry,
        blobs: BlobStore,
        lease: WorkLease,
        clock: Clock,
    ) -> None:
        self._bases = bases
        self._store = store
        self._replicas = replicas
        self._registry = registry
        self._blobs = blobs
        self._lease = lease
        self._clock = clock
        self._failures: dict[tuple[str, str], int] = {}
        self._not_before_ms: dict[tuple[str, str], int] = {}

    async def step(self) -> None:
        """Bring every replica one step nearer to what it should hold."""
        if not await self._lease.take():
            return
        snapshot = await self._registry.read()
        if snapshot is None or self._clock.now_ms() - snapshot.at_ms > SNAPSHOT_MAX_AGE_S * 1000:
            return
        await asyncio.gather(*(self._tend(replica, snapshot) for replica in snapshot.replicas))
        await self._delete_files(snapshot)
        self._forget_old_failures(snapshot)

    async def _tend(self, replica: Replica, snapshot: ReplicaSnapshot) -> None:
        try:
            await self._unload_ended(replica)
            await self._load_newest(replica, snapshot)
        except ReplicaLost as error:
            _LOG.info("replica %s does not answer: %s", replica.name, error)

    async def _unload_ended(self, replica: Replica) -> None:
        if not replica.adapters:
            return
        for name in sorted(set(replica.adapters) - await self._store.may_be_resident(replica.adapters)):
            try:
                async with asyncio.timeout(UNLOAD_TIMEOUT_S):
                    await self._replicas.unload(replica, name)
                _LOG.info("unloaded %s from %s", name, replica.name)
            except (AdapterRefused, TimeoutError) as error:
                _LOG.info("%s stays on %s for now: %s", name, replica.name, error)

    async def _load_newest(self, replica: Replica, snapshot: ReplicaSnapshot) -> None:
        room = self._bases.max_resident(replica.model)
        if room == 0:
            return
        free = room - len(replica.adapters)
        loads = 0
        for adapter in await self._store.newest_live(replica.model, room):
            if loads == LOADS_A_STEP:
                return
            if adapter.name in replica.adapters or not self._may_try(replica, adapter):
                continue
            if free <= 0 and not self._must_make_room(adapter, snapshot):
                return
            loads += 1
            free -= 1
            await self._load(replica, adapter)

    def _must_make_room(self, adapter: Adapter, snapshot: ReplicaSnapshot) -> bool:
        young = adapter.live_ms is not None and self._clock.now_ms() - adapter.live_ms < NEW_S * 1000
        return young and not any(adapter.name in replica.adapters for replica in snapshot.replicas)

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

    async def _delete_files(self, snapshot: ReplicaSnapshot) -> None:
        if not snapshot.complete:
            return  # a replica that did not answer may hold anything
        held = {name for replica in snapshot.replicas for name in replica.adapters}
        before_ms = self._clock.now_ms() - DELETE_AFTER_S * 1000
        for adapter in await self._store.with_files_to_delete(before_ms, DELETES_A_STEP):
            if adapter.name not in held:
                await self._blobs.delete(adapter.ref.path)
                await self._store.files_deleted(adapter.id)
                _LOG.info("deleted the files of %s", adapter.name)

    def _forget_old_failures(self, snapshot: ReplicaSnapshot) -> None:
        names = {replica.name for replica in snapshot.replicas}
        now_ms = self._clock.now_ms()
        for key in [
            key for key, at in self._not_before_ms.items() if key[0] not in names or now_ms > at + MAX_RETRY_S * 1000
        ]:
            del self._not_before_ms[key]
            self._failures.pop(key, None)
