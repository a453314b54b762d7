"""The real catalog over the stack's database: what a worker publishes can be resolved."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from redis.asyncio import Redis

from support.finetune.ports import SMALL_MODEL, FixedModels, FixedPrices
from support.finetune.stack import FinetuneStack
from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.changes import TOPIC, CatalogCarrier
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore
from tokenyard.storage.quota import StorageQuota
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.store import record


class ServedModels(FixedModels):
    """The one base model, as the catalog asks for it."""

    def all(self) -> Sequence[Any]:
        return [SMALL_MODEL]


class ServedCatalog(NamedTuple):
    models: ModelCatalog
    adapters: AdapterCatalog
    operator: CatalogOperatorStore

    @classmethod
    def over(cls, stack: FinetuneStack, redis: Redis, quota: StorageQuota | None = None) -> Self:
        bases: Any = ServedModels()
        store = CatalogStore(stack.database, stack.clock, record, quota or stack.quota)
        models = ModelCatalog(bases, store, FixedPrices(), stack.clock, now=stack.clock)
        outbox = TransactionalOutbox(stack.database, redis, stack.clock, {TOPIC: CatalogCarrier(redis).carry})
        adapters = AdapterCatalog(bases, store, models, CatalogPush(models, outbox))
        return cls(models, adapters, CatalogOperatorStore(stack.database, stack.clock, record))
