"""The worker's hand on adapters that have ended: first no replica holds them, then, a while later, their files go."""

import logging

from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.catalog.store import Adapter
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.storage.blobs import BlobStore

_LOG = logging.getLogger(__name__)
DRAIN_S = 15 * 60
"""No gateway's cache, however stale, asks for an adapter that has been draining this long."""
ADAPTERS_A_STEP = 20


class Retirement:
    """`draining` -> `retired` -> files deleted. Replicas are told to let go by `Placement`."""

    def __init__(
        self,
        *,
        store: CatalogOperatorStore,
        registry: ReplicaRegistry,
        blobs: BlobStore,
        lease: WorkLease,
        clock: Clock,
        kept_ms: int,
    ) -> None:
        """`kept_ms`: how long the files of a retired adapter are kept."""
        self._store = store
        self._registry = registry
        self._blobs = blobs
        self._lease = lease
        self._clock = clock
        self._kept_ms = kept_ms

    async def step(self) -> None:
        """Bring some of them one step further, where it is known what every replica holds."""
        if not await self._lease.take():
            return
        snapshot, now_ms = await self._registry.read(), self._clock.now_ms()
        # A replica that did not answer may hold anything.
        if snapshot is None or not snapshot.complete or not snapshot.is_current(now_ms):
            return
        held = {name for replica in snapshot.replicas for name in replica.adapters}
        for adapter in await self._store.drained(now_ms - DRAIN_S * 1000, held, ADAPTERS_A_STEP):
            await self._store.retired(adapter.id)
            _LOG.info("no replica holds %s any more", adapter.name)
        for adapter in await self._store.with_files_to_delete(now_ms - self._kept_ms, held, ADAPTERS_A_STEP):
            await self._delete_files(adapter)

    async def _delete_files(self, adapter: Adapter) -> None:
        try:
            await self._blobs.delete(adapter.ref.path)
        except (Unavailable, OSError) as error:  # the next look tries again; meanwhile others may go
            _LOG.warning("the files of %s cannot be deleted now: %r", adapter.name, error)
            return
        await self._store.files_deleted(adapter.id)
        _LOG.info("deleted the files of %s", adapter.name)
