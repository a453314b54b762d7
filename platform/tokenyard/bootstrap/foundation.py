"""What every process of ours stands on: settings, clock, SQL, Redis, blobs, and who may call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from redis.asyncio import Redis

from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.aliases.model_aliases import ModelAliases
from tokenyard.catalog.aliases.store import AliasStore
from tokenyard.catalog.base_models.base_models import BaseModels, load_specs
from tokenyard.catalog.base_models.model_files import TOPIC as MODEL_FILES
from tokenyard.catalog.base_models.model_files import ModelFiles, model_file_carrier
from tokenyard.catalog.changes import TOPIC as CATALOG
from tokenyard.catalog.changes import CatalogCarrier
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore, adapter_bytes
from tokenyard.core.clock import Clock, SystemClock
from tokenyard.core.ids import ApiKeyId
from tokenyard.evals.store import eval_bytes
from tokenyard.files.store import file_bytes
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.metering.stream import USAGE_TOPIC, usage_carrier
from tokenyard.responses.content import ContentCipher
from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.responses.store import AnswerStore, answer_bytes
from tokenyard.settings import Settings
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageQuota, StorageUse
from tokenyard.storage.redis import connect_redis
from tokenyard.storage.transactional_outbox import Handler, TransactionalOutbox
from tokenyard.tenancy.api_keys import ApiKeys
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.authentication.lent_keys import LentKeys
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.changes import TOPIC as TENANCY
from tokenyard.tenancy.changes import TenancyCarrier
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore, record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.pricing.price_book import TOPIC as PRICES
from tokenyard_billing.pricing.price_book import PriceBook, price_carrier
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.changes import TOPIC as BUDGETS
from tokenyard_billing.wallets.changes import BudgetCarrier
from tokenyard_billing.wallets.reservations import JobReservations
from tokenyard_billing.wallets.store import OpeningCredit, Wallet

LENT_S = 60


@dataclass(frozen=True)
class Foundation:
    """The shared collaborators; the cheap ones are made when first asked for, and then kept."""

    settings: Settings
    clock: Clock
    database: Database
    redis: Redis
    blobs: BlobStore

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Settings) -> AsyncIterator["Foundation"]:
        """Open the connections for the length of a process."""
        import_all_tables()
        database = Database(settings.effective_database_url)
        redis = connect_redis(settings.effective_redis_url)
        try:
            yield cls(settings, SystemClock(), database, redis, BlobStore(settings.effective_blob_url))
        finally:
            await redis.aclose()
            await database.close()

    @cached_property
    def hasher(self) -> KeyHasher:
        return KeyHasher([Pepper(1, self.settings.derived_secret("api-key-pepper-1"))])

    @cached_property
    def tenancy(self) -> TenancyStore:
        return TenancyStore(self.database, self.clock)

    @cached_property
    def tenancy_operator(self) -> TenancyOperatorStore:
        return TenancyOperatorStore(self.database, self.clock)

    @cached_property
    def authenticator(self) -> KeyAuthenticator:
        return KeyAuthenticator(self.tenancy_operator, self.hasher, self.clock, lent=self.lent_keys)

    @cached_property
    def lent_keys(self) -> LentKeys:
        return LentKeys(self.settings.derived_secret("lent-keys"), self.clock)

    async def lent_bearer(self, key: ApiKeyId) -> str | None:
        """Return a bearer that stands for a key for a minute; None where there is no such key any more."""
        found = await self.tenancy_operator.key_hash(key)
        return None if found is None else self.lent_keys.lend(found, for_s=LENT_S)

    @cached_property
    def tenancy_push(self) -> TenancyPush:
        return TenancyPush(self.authenticator, self.outbox)

    @cached_property
    def api_keys(self) -> ApiKeys:
        return ApiKeys(
            store=self.tenancy,
            operator_store=self.tenancy_operator,
            push=self.tenancy_push,
            hasher=self.hasher,
            clock=self.clock,
        )

    @cached_property
    def budgets(self) -> SqlBudgets:
        return SqlBudgets(self.database)

    @cached_property
    def live_budgets(self) -> RedisBudgets:
        return RedisBudgets(self.redis)

    @cached_property
    def outbox(self) -> TransactionalOutbox:
        handlers: dict[str, Handler] = {
            BUDGETS: BudgetCarrier(self.budgets, self.live_budgets, self.reservation_holds).carry,
            TENANCY: TenancyCarrier(self.redis, RedisRevisions(self.redis)).carry,
            CATALOG: CatalogCarrier(self.redis).carry,
            PRICES: price_carrier(self.redis),
            MODEL_FILES: model_file_carrier(self.redis),
            USAGE_TOPIC: usage_carrier(self.redis),
        }
        return TransactionalOutbox(self.database, self.redis, self.clock, handlers)

    @cached_property
    def reservation_holds(self) -> ReservationHolds:
        return ReservationHolds(self.redis, self.budgets.load)

    @cached_property
    def price_book(self) -> PriceBook:
        return PriceBook(self.database)

    @cached_property
    def prices(self) -> PriceList:
        """What `price_book` knows; nothing before it was entered."""
        return self.price_book.prices

    @cached_property
    def base_models(self) -> BaseModels:
        """What `model_files` knows; nothing before it was entered."""
        return BaseModels([], self.settings.effective_models_path)

    @cached_property
    def model_files(self) -> ModelFiles:
        settings = self.settings
        return ModelFiles(self.database, self.base_models, lambda: load_specs(settings.models, settings.models_dir))

    @cached_property
    def wallet(self) -> Wallet:
        return Wallet(self.database, self.outbox, write_event, self.clock)

    @cached_property
    def organizations(self) -> Organizations:
        credit = OpeningCredit(self.wallet, self.settings.opening_credit_dollars)
        return Organizations(self.tenancy_operator, credit.created)

    @cached_property
    def reservations(self) -> JobReservations:
        return JobReservations(
            database=self.database,
            outbox=self.outbox,
            holds=self.reservation_holds,
            limits=self.tenancy,
            clock=self.clock,
        )

    @cached_property
    def blocking(self) -> OrganizationBlocks:
        return OrganizationBlocks()

    @cached_property
    def quota(self) -> StorageQuota:
        """Of files and fine-tuned models."""
        return StorageQuota(self.database, self.settings.files_bytes_per_organization, file_bytes, adapter_bytes)

    @cached_property
    def stored(self) -> StorageUse:
        """All that gigabyte-months are counted of."""
        return StorageUse(file_bytes, adapter_bytes, answer_bytes, eval_bytes)

    @cached_property
    def catalog_store(self) -> CatalogStore:
        return CatalogStore(self.database, self.clock, record, self.quota)

    @cached_property
    def catalog_operator(self) -> CatalogOperatorStore:
        return CatalogOperatorStore(self.database, self.clock, record)

    @cached_property
    def aliases(self) -> ModelAliases:
        store = AliasStore(self.database, self.clock, record)
        return ModelAliases(store, self.models, self.base_models, self.catalog_push)

    @cached_property
    def models(self) -> ModelCatalog:
        return ModelCatalog(self.base_models, self.catalog_store, self.prices, self.clock)

    @cached_property
    def adapters(self) -> AdapterCatalog:
        return AdapterCatalog(self.base_models, self.catalog_store, self.models, self.catalog_push)

    @cached_property
    def answers_cipher(self) -> ContentCipher:
        return ContentCipher([self.settings.derived_secret("stored-answers")])

    @cached_property
    def answers(self) -> AnswerStore:
        return AnswerStore(self.database, self.clock, self.answers_cipher, retention_ms=self.settings.stored_answers_ms)

    @cached_property
    def answers_operator(self) -> AnswerOperatorStore:
        return AnswerOperatorStore(self.database, self.clock, retention_ms=self.settings.stored_answers_ms)

    @cached_property
    def catalog_push(self) -> CatalogPush:
        return CatalogPush(self.models, self.outbox)
