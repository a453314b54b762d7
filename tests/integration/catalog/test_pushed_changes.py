"""A model that goes live or ends, and an alias, are in force in every process: pushed. No clock moves here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from support.gateway_stack import until
from tokenyard.catalog.models import ModelCatalog
from tokenyard.core.errors import ModelNotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.change_feed import ChangeFeed

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

KEY = ApiKeyId("key_1")
ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")


class Gateway:
    """Another process: a cache of models that follows the change feed."""

    def __init__(self, models: ModelCatalog) -> None:
        self.models = models
        self.told: list[str | None] = []

    async def listen(self, organization: str | None) -> None:
        (listener,) = self.models.listeners().values()
        await listener(organization)
        self.told.append(organization)

    async def is_told(self, times: int) -> None:
        await until(lambda: self.told.count(ACME) >= times)


@asynccontextmanager
async def gateway(catalog: "Catalog") -> AsyncIterator[Gateway]:
    made = Gateway(catalog.another_gateway())
    async with ChangeFeed(catalog.redis, dict.fromkeys(made.models.listeners(), made.listen)):
        await until(lambda: made.told == [None])
        yield made


async def test_a_model_goes_live_and_ends_everywhere(catalog: "Catalog") -> None:
    name = await catalog.checking()
    async with gateway(catalog) as one, gateway(catalog) as two:
        for each in (one, two):
            with pytest.raises(ModelNotFound):
                await each.models.resolve(ACME, str(name))
        await catalog.adapters.promote(ACME, name.id)
        for each in (one, two):
            await each.is_told(1)
            assert (await each.models.resolve(ACME, str(name))).adapter
        await catalog.adapters.delete(ACME, str(name), actor=KEY)
        for each in (one, two):
            await each.is_told(2)
            with pytest.raises(ModelNotFound):
                await each.models.resolve(ACME, str(name))


async def test_an_alias_names_another_model_everywhere(catalog: "Catalog") -> None:
    async with gateway(catalog) as each:
        for times, live in enumerate([await catalog.live(), await catalog.live()], start=1):
            _, messages = await catalog.aliases.store.point(ACME, "bot", model=str(live), adapter=live.id, actor=KEY)
            await catalog.push.changed(ACME, messages)
            await each.is_told(times + 2)
            assert (await each.models.resolve(ACME, "bot")).name == str(live)
        await catalog.push.changed(ACME, await catalog.aliases.store.delete(ACME, "bot", actor=KEY))
        await each.is_told(5)
        with pytest.raises(ModelNotFound):
            await each.models.resolve(ACME, "bot")


async def test_the_loop_tells_what_a_dead_process_did_not_and_only_its_own_organization(catalog: "Catalog") -> None:
    name, others = await catalog.live(ACME), await catalog.live(UMBRA)
    async with gateway(catalog) as each:
        known = await each.models.resolve(UMBRA, str(others))
        assert (await each.models.resolve(ACME, str(name))).adapter
        await catalog.store.retire(ACME, name.id, actor=KEY, reason="its process dies after the commit")
        catalog.clock.advance(1)
        await catalog.outbox.step()
        await each.is_told(1)
        with pytest.raises(ModelNotFound):
            await each.models.resolve(ACME, str(name))
        assert UMBRA not in each.told
        assert await each.models.resolve(UMBRA, str(others)) == known
