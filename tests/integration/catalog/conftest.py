"""The catalog as gateway and worker wire it, over real SQL, a real Valkey and a folder of blobs."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from tokenyard.catalog.adapters import AdapterCatalog
from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.changes import TOPIC, CatalogCarrier
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.store import CatalogStore
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, PriceId, ProjectId, new_adapter_id
from tokenyard.core.models import AcceleratorSpec, FolderSource, LoraSpec, ModelSpec
from tokenyard.core.money import NanoDollars, Price
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
BASE, UNPRICED = "smol", "unpriced"
ROOM = 3


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
        accelerators={"cpu": AcceleratorSpec(bundle={"CPU": 1}, engine={"max_num_seqs": 2})},
        lora=LoraSpec(max_cpu_loras=ROOM),
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
            organization, project=ProjectId("proj_1"), name=name, path=path, digest="d" * 64, job=JobId("ftjob-1")
        )
        return name

    async def live(self, organization: OrganizationId = ACME, suffix: str = "bot") -> FineTunedName:
        name = await self.checking(organization, suffix)
        await self.adapters.promote(organization, name.id)
        return name


@pytest.fixture
def catalog(database: Database, redis: Redis, tmp_path: Path) -> Catalog:
    clock = FrozenClock()
    bases = BaseModels([spec(BASE), spec(UNPRICED)], tmp_path / "models")
    prices = Prices()
    store = CatalogStore(database, clock)
    models = ModelCatalog(bases, store, prices, clock, now=clock)
    outbox = TransactionalOutbox(database, redis, clock, {TOPIC: CatalogCarrier(redis).carry})
    push = CatalogPush(models, outbox)
    return Catalog(
        database=database,
        redis=redis,
        clock=clock,
        bases=bases,
        prices=prices,
        store=store,
        operator_store=CatalogOperatorStore(database, clock),
        models=models,
        outbox=outbox,
        push=push,
        adapters=AdapterCatalog(bases, store, models, push),
        registry=ReplicaRegistry(redis),
        blobs=BlobStore(f"file://{tmp_path / 'blobs'}"),
    )
