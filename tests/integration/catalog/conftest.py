"""The catalog as gateway and worker wire it, over real SQL, a real Valkey and a folder of blobs."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.aliases.model_aliases import ModelAliases
from tokenyard.catalog.aliases.store import AliasStore
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.changes import TOPIC, CatalogCarrier
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.store import CatalogStore, adapter_bytes
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, PriceId, ProjectId, new_adapter_id
from tokenyard.core.model_files.accelerators import AcceleratorSpec, LoraRoomSpec
from tokenyard.core.model_files.sources import FolderSource
from tokenyard.core.models import ModelSpec
from tokenyard.core.money import NanoDollars, Price
from tokenyard.metering.stream import USAGE_TOPIC, usage_carrier
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageQuota
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.store import TenancyStore, record

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
KEY = ApiKeyId("key_1")
BASE, UNPRICED = "smol", "unpriced"
ROOM = 3
SIZE, QUOTA_BYTES = 10, 1_000
"""Of an adapter, and of all that an organization may keep."""


class Prices:
    """Everything costs the same but what has no price."""

    def __init__(self) -> None:
        self.fine_tuned = True

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        if model == UNPRICED or (fine_tuned and not self.fine_tuned):
            return None
        one = NanoDollars(1)
        return Price(PriceId(f"card/{model}{'/fine-tuned' * fine_tuned}"), model, one, one, one, one)


def spec(model: str) -> ModelSpec:
    return ModelSpec(
        id=model,
        source=FolderSource("/models"),
        context_length=100,
        default_max_tokens=10,
        template_tokens=1,
        template_tokens_per_message=1,
        created=1_700_000_000,
        accelerators={
            "cpu": AcceleratorSpec(bundle_per_worker={"CPU": 1}, lora=LoraRoomSpec(2, ROOM), engine={"max_num_seqs": 2})
        },
    )


@dataclass
class Catalog:
    """Everything of the catalog."""

    database: Database
    redis: Redis
    clock: FrozenClock
    bases: BaseModels
    prices: Prices
    store: CatalogStore
    operator_store: CatalogOperatorStore
    models: ModelCatalog
    outbox: TransactionalOutbox
    push: CatalogPush
    adapters: AdapterCatalog
    aliases: ModelAliases
    tenancy: TenancyStore
    registry: ReplicaRegistry
    blobs: BlobStore

    def another_gateway(self) -> ModelCatalog:
        """A catalog whose cache nobody tells anything."""
        return ModelCatalog(self.bases, self.store, self.prices, self.clock, now=self.clock)

    async def checking(self, organization: OrganizationId = ACME, suffix: str = "bot") -> FineTunedName:
        name = FineTunedName(BASE, organization.removeprefix("org_"), suffix, AdapterId(new_adapter_id()))
        path = f"adapters/{organization}/{name.id}"
        await self.blobs.write(f"{path}/manifest.json", b"{}")
        await self.adapters.register(
            organization,
            project=ProjectId("proj_1"),
            name=name,
            path=path,
            digest="d" * 64,
            size=SIZE,
            job=JobId("ftjob-1"),
            actor=KEY,
        )
        return name

    async def noted(self, organization: OrganizationId = ACME) -> list[tuple[str, str, str]]:
        """Return type, actor and resource of what the audit log has, oldest first."""
        entries = await self.tenancy.audit_log(organization, before=None, limit=1000)
        return [(entry.type, entry.actor.api_key.id, entry.resource_id) for entry in reversed(entries)]

    async def live(self, organization: OrganizationId = ACME, suffix: str = "bot") -> FineTunedName:
        name = await self.checking(organization, suffix)
        await self.adapters.promote(organization, name.id)
        return name


@pytest.fixture
def catalog(database: Database, redis: Redis, tmp_path: Path) -> Catalog:
    clock = FrozenClock()
    bases = BaseModels([spec(BASE), spec(UNPRICED)], tmp_path / "models")
    prices = Prices()
    store = CatalogStore(database, clock, record, StorageQuota(database, QUOTA_BYTES, adapter_bytes))
    models = ModelCatalog(bases, store, prices, clock, now=clock)
    outbox = TransactionalOutbox(
        database, redis, clock, {TOPIC: CatalogCarrier(redis).carry, USAGE_TOPIC: usage_carrier(redis)}
    )
    push = CatalogPush(models, outbox)
    return Catalog(
        database=database,
        redis=redis,
        clock=clock,
        bases=bases,
        prices=prices,
        store=store,
        operator_store=CatalogOperatorStore(database, clock, record),
        models=models,
        outbox=outbox,
        push=push,
        adapters=AdapterCatalog(bases, store, models, push),
        aliases=ModelAliases(AliasStore(database, clock, record), models, bases, push),
        tenancy=TenancyStore(database, clock),
        registry=ReplicaRegistry(redis),
        blobs=BlobStore(f"file://{tmp_path / 'blobs'}"),
    )
