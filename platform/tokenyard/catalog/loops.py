"""The catalog's loops in a worker."""

from redis.asyncio import Redis

from tokenyard.catalog.adapters.hosting import Hosting
from tokenyard.catalog.adapters.retirement import Retirement
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import PinningPlans, ReplicaControl, ServeTargets
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.pinning import Pinning
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.waking import Waking
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.clock import Clock
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop

DISCOVERY_S = 1.0
DISCOVERY_LEASE_MS = 10_000
WAKING_S = 0.5
PINNING_S = 1.0
PINNING_LEASE_MS = 10_000
PLACEMENT_S = 2.0
PLACEMENT_LEASE_MS = 60_000
RETIREMENT_S = 5.0
RETIREMENT_LEASE_MS = 60_000
HOSTING_S = 5.0


def catalog_loops(
    *,
    redis: Redis,
    database: Database,
    blobs: BlobStore,
    plans: PinningPlans,
    serve: ServeTargets,
    replicas: ReplicaControl,
    audit: AuditLog,
    outbox: TransactionalOutbox,
    clock: Clock,
    bases: BaseModels,
    retired_kept_ms: int,
) -> list[Loop]:
    """Return the loops that find replicas, wake models, place adapters, count their hours, delete what has ended."""
    registry, store = ReplicaRegistry(redis), CatalogOperatorStore(database, clock, audit)
    discovery = Discovery(serve, replicas, registry, WorkLease(redis, "discovery", DISCOVERY_LEASE_MS), clock)
    placement = Placement(
        store=store,
        replicas=replicas,
        registry=registry,
        lease=WorkLease(redis, "adapters", PLACEMENT_LEASE_MS),
        clock=clock,
    )
    hosting = Hosting(database, outbox, clock)
    pinning = Pinning(
        plans=plans,
        store=store,
        hosting=hosting,
        replicas=replicas,
        registry=registry,
        lease=WorkLease(redis, "pins", PINNING_LEASE_MS),
        clock=clock,
    )
    retirement = Retirement(
        store=store,
        registry=registry,
        blobs=blobs,
        lease=WorkLease(redis, "retirement", RETIREMENT_LEASE_MS),
        clock=clock,
        kept_ms=retired_kept_ms,
    )
    return [
        Loop("discovery", discovery.step, DISCOVERY_S),
        Loop("waking", Waking(bases, serve, replicas, registry).step, WAKING_S),
        Loop("adapters", placement.step, PLACEMENT_S),
        Loop("retirement", retirement.step, RETIREMENT_S),
        Loop("pins", pinning.step, PINNING_S),
        Loop("hosting", hosting.step, HOSTING_S),
    ]
