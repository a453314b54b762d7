"""Turns a public model name into base model, price and adapter: the request path's view of the catalog."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.changes import MODELS_CHANGED
from tokenyard.catalog.store import Adapter, CatalogStore, OwnModels
from tokenyard.catalog.views import ModelDetails
from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, ModelNotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import BaseModel, ResolvedModel
from tokenyard.core.money import Price, PriceLookup
from tokenyard.storage.change_feed import Listener
from tokenyard.storage.read_cache import ReadCache

FRESH_S = 10.0
NEW_MODEL_S = 1.0
"""A model that went live can be called after this long also where the change feed is out of reach."""
STALE_S = 600.0
CACHED_ORGANIZATIONS = 10_000
MAX_NAME_LENGTH = 255
OWNER = "tokenyard"


class ModelCatalog:
    """Base models are in memory; an organization's own models are cached whole.

    So a name that does not exist costs at most one look-up a second and organization, however many are tried, and a
    look-up reads one row unless something changed. While SQL is down the cache serves on for ten minutes.
    """

    def __init__(
        self,
        bases: BaseModels,
        store: CatalogStore,
        prices: PriceLookup,
        clock: Clock,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `clock` for the dates of prices and `now` (seconds, monotonic) for the age of what is cached."""
        self._bases = bases
        self._prices = prices
        self._clock = clock
        self._cache: ReadCache[OrganizationId, OwnModels] = ReadCache(
            store.own_models, fresh_s=FRESH_S, stale_s=STALE_S, size=CACHED_ORGANIZATIONS, now=now
        )

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel:
        """Return what `name` stands for: a base model, the organization's own fine-tune, or its alias of either.

        Raises:
            ModelNotFound: no such model, another organization's, or one without a price.
            Unavailable: it is not cached and the database is down.
        """
        base, price, adapter = await self._find(organization, name)
        if adapter is None:
            return ResolvedModel(base.id, base, price)
        return ResolvedModel(adapter.name, base, price, adapter.ref)

    async def list_models(
        self,
        organization: OrganizationId,
        *,
        after: str | None = None,
        limit: int | None = None,
        allowed: Callable[[str], bool] = lambda _name: True,
    ) -> list[ModelDetails]:
        """Return what the organization may call by its proper name: base models, then its own, oldest first.

        At most `limit` that are `allowed`, from behind the model `after` on (`InvalidRequest` where it has none).
        """
        own = await self._cache.get(organization, fresh_s=NEW_MODEL_S)
        adapters = {} if own is None else own.adapters
        offered = chain(((base.id, None) for base in self._bases.all()), adapters.items())
        if after is not None and not any(name == after for name, _ in offered):
            raise InvalidRequest(f"No such model: {after[:MAX_NAME_LENGTH]}", param="after")
        return list(islice(self._offered(offered, allowed), limit))

    def _offered(
        self, models: Iterable[tuple[str, Adapter | None]], allowed: Callable[[str], bool]
    ) -> Iterator[ModelDetails]:
        for name, adapter in models:
            served = self._served(name if adapter is None else adapter.base, adapter)
            if served is not None and allowed(name):
                yield _details(served[0], adapter)

    async def get(self, organization: OrganizationId, name: str) -> ModelDetails:
        """Return one model; an alias answers as what it stands for."""
        base, _price, adapter = await self._find(organization, name)
        return _details(base, adapter)

    async def own_adapter(self, organization: OrganizationId, name: str) -> Adapter | None:
        """Return the organization's live fine-tune called `name`, which is no alias, as SQL has it now, or None."""
        return (await self._fine_tunes(organization)).get(name)

    async def fine_tunes(self, organization: OrganizationId) -> dict[str, str]:
        """Return the names under which the organization's fine-tunes can be called, as SQL has them now.

        Each has its proper name, under which it is charged: that of a last checkpoint is its model's.
        """
        return {name: adapter.name for name, adapter in (await self._fine_tunes(organization)).items()}

    async def _fine_tunes(self, organization: OrganizationId) -> dict[str, Adapter]:
        own = await self._cache.latest(organization)
        return {} if own is None else own.fine_tunes

    def may_serve(self, adapter: Adapter) -> bool:
        """Tell whether the adapter's base model is served here and has a price for fine-tunes."""
        return self._served(adapter.base, adapter) is not None

    def listeners(self) -> Mapping[str, Listener]:
        """Return what is to follow the change feed in every process that resolves models."""
        return {MODELS_CHANGED: self.organization_changed}

    async def organization_changed(self, organization: str | None) -> None:
        """Look up the models of an organization, or everybody's, afresh from now on."""
        if organization is None:
            self._cache.outdate_where(lambda _own: True)
        else:
            self._cache.outdate(OrganizationId(organization))

    async def _find(self, organization: OrganizationId, name: str) -> tuple[BaseModel, Price, Adapter | None]:
        base, adapter = (name, None) if self._bases.get(name) else await self._own(organization, name)
        served = self._served(base, adapter)
        if served is None:
            raise model_not_found(name)
        return *served, adapter

    async def _own(self, organization: OrganizationId, name: str) -> tuple[str, Adapter | None]:
        """Return the base model behind a name of the organization's own, and the adapter where it is a fine-tune."""
        if len(name) <= MAX_NAME_LENGTH:
            for fresh_s in (FRESH_S, NEW_MODEL_S):
                own = await self._cache.get(organization, fresh_s=fresh_s)
                target = name if own is None else own.aliases.get(name, name)
                adapter = None if own is None else own.adapters.get(target)
                if adapter is not None:
                    return adapter.base, adapter
                if target != name:
                    return target, None
        raise model_not_found(name)

    def _served(self, base: str, adapter: Adapter | None) -> tuple[BaseModel, Price] | None:
        """Return a base model and what it, or an adapter of it, costs; None where it is not served or has no price."""
        found = self._bases.get(base)
        price = self._prices.price(base, fine_tuned=adapter is not None, at_ms=self._clock.now_ms())
        return None if found is None or price is None else (found, price)


def model_not_found(name: str) -> ModelNotFound:
    """Return the one answer to a name that does not exist and to one of somebody else."""
    asked = name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}..."
    return ModelNotFound(f"The model `{asked}` does not exist or you do not have access to it.", param="model")


def _details(base: BaseModel, adapter: Adapter | None) -> ModelDetails:
    if adapter is None:
        return ModelDetails.of(base.id, base, created=base.created, owner=OWNER)
    return ModelDetails.of(adapter.name, base, created=adapter.created_ms // 1000, owner=adapter.organization)
