"""Turns a public model name into base model, price and adapter: the request path's view of the catalog."""

import time
from collections.abc import Callable

from tokenyard.catalog.base_models import BaseModels
from tokenyard.catalog.ports import PriceLookup
from tokenyard.catalog.store import Adapter, CatalogStore, OwnModels
from tokenyard.core.catalog import BaseModel, ModelView, ResolvedModel
from tokenyard.core.clock import Clock
from tokenyard.core.errors import ModelNotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.core.model_spec import SamplingDefaults
from tokenyard.core.price import Price
from tokenyard.storage.read_cache import ReadCache

FRESH_S = 10.0
NEW_MODEL_S = 1.0
"""A model that went live can be called everywhere after this long."""
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
        base = self._bases.get(name)
        if base is not None:
            return _resolved(name, base, self._price(name, fine_tuned=False))
        if len(name) > MAX_NAME_LENGTH:
            raise model_not_found(name)
        target, adapter = await self._own(organization, name)
        if adapter is None:
            return _resolved(name, self._bases.get(target), self._price(target, fine_tuned=False))
        price = self._price(adapter.base, fine_tuned=True)
        return _resolved(name, self._bases.get(adapter.base), price, adapter)

    async def list_models(self, organization: OrganizationId) -> list[ModelView]:
        """Return everything the organization may call by its proper name: base models, then its own, oldest first."""
        own = await self._cache.get(organization, fresh_s=NEW_MODEL_S)
        bases = [_base_view(base) for base in self._bases.all() if self._price(base.id, fine_tuned=False)]
        adapters = () if own is None else own.adapters.values()
        return bases + [self._adapter_view(adapter) for adapter in adapters if self._callable(adapter)]

    async def get(self, organization: OrganizationId, name: str) -> ModelView:
        """Return one model; an alias answers as what it stands for.

        Raises:
            ModelNotFound: no such model, another organization's, or one without a price.
        """
        resolved = await self.resolve(organization, name)
        if resolved.adapter is None:
            return _base_view(resolved.base)
        _, adapter = await self._own(organization, resolved.name)
        if adapter is None:
            raise model_not_found(name)
        return self._adapter_view(adapter)

    async def own_adapter(self, organization: OrganizationId, name: str) -> Adapter | None:
        """Return the organization's live fine-tune called exactly `name`, as SQL has it now, or None."""
        own = await self._cache.get(organization, fresh_s=0.0)
        return None if own is None else own.adapters.get(name)

    def forget(self, organization: OrganizationId) -> None:
        """Drop the organization from this process's cache, because something of it was just changed."""
        self._cache.forget(organization)

    async def _own(self, organization: OrganizationId, name: str) -> tuple[str, Adapter | None]:
        """Return the proper name behind `name`, and its adapter; without one it is a base model's."""
        own = await self._cache.get(organization)
        found = None if own is None else _find(own, name)
        if found is None:
            own = await self._cache.get(organization, fresh_s=NEW_MODEL_S)
            found = None if own is None else _find(own, name)
        if found is None:
            raise model_not_found(name)
        return found

    def _callable(self, adapter: Adapter) -> bool:
        return self._bases.get(adapter.base) is not None and self._price(adapter.base, fine_tuned=True) is not None

    def _adapter_view(self, adapter: Adapter) -> ModelView:
        base = self._bases.get(adapter.base)
        sampling = SamplingDefaults() if base is None else base.sampling
        return ModelView(adapter.name, adapter.created_ms // 1000, adapter.organization, sampling)

    def _price(self, base: str, *, fine_tuned: bool) -> Price | None:
        return self._prices.price(base, fine_tuned=fine_tuned, at_ms=self._clock.now_ms())


def model_not_found(name: str) -> ModelNotFound:
    """Return the one answer to a name that does not exist and to one of somebody else."""
    shown = name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}..."
    return ModelNotFound(f"The model `{shown}` does not exist or you do not have access to it.", param="model")


def _find(own: OwnModels, name: str) -> tuple[str, Adapter | None] | None:
    target = own.aliases.get(name, name)
    adapter = own.adapters.get(target)
    if adapter is not None or target != name:
        return target, adapter
    return None


def _resolved(asked: str, base: BaseModel | None, price: Price | None, adapter: Adapter | None = None) -> ResolvedModel:
    if base is None or price is None:
        raise model_not_found(asked)
    if adapter is None:
        return ResolvedModel(base.id, base, price)
    return ResolvedModel(adapter.name, base, price, adapter.ref)


def _base_view(base: BaseModel) -> ModelView:
    return ModelView(base.id, base.created, OWNER, base.sampling)
