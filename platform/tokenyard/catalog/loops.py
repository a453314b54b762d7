"""The catalog's loops in a worker."""

from redis.asyncio import Redis

from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import ReplicaControl, ServeTargets
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.clock import Clock
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop

DISCOVERY_S = 1.0
DISCOVERY_LEASE_MS = 10_000
PLACEMENT_S = 2.0
PLACEMENT_LEASE_MS = 60_000


def catalog_loops(
    *,
    redis: Redis,
    database: Database,
    blobs: BlobStore,
    bases: BaseModels,
    serve: ServeTargets,
    replicas: ReplicaControl,
    clock: Clock,
) -> list[Loop]:
    """Return the loops that find replicas and that place adapters on them."""
    registry = ReplicaRegistry(redis)
    discovery = Discovery(serve, replicas, registry, WorkLease(redis, "discovery", DISCOVERY_LEASE_MS), clock)
    placement = Placement(
        bases=bases,
        store=CatalogOperatorStore(database, clock),
        replicas=replicas,
        registry=registry,
        blobs=blobs,
        lease=WorkLease(redis, "adapters", PLACEMENT_LEASE_MS),
        clock=clock,
    )
    return [Loop("discovery", discovery.step, DISCOVERY_S), Loop("adapters", placement.step, PLACEMENT_S)]
