"""Names of models: what they resolve to, for whom, how fast news travels, and what a lost database changes."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import Conflict, InvalidRequest, ModelNotFound, NotFound, PermissionDenied, Unavailable
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.storage.database import Database

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

KEY = ApiKeyId("key_1")
ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")


async def test_a_base_model_resolves_without_sql(catalog: "Catalog") -> None:
    dead = Database("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none")
    catalog.store._database = dead
    resolved = await catalog.models.resolve(ACME, "smol")
    assert (resolved.name, resolved.base.id, resolved.adapter) == ("smol", "smol", None)
    assert resolved.price.id == "card/smol"
    assert resolved.base.path.endswith("/models/smol")
    await dead.close()


async def test_a_fine_tune_resolves_to_its_adapter_and_the_fine_tuned_price(catalog: "Catalog") -> None:
    name = await catalog.live()
    resolved = await catalog.models.resolve(ACME, str(name))
    assert resolved.name == str(name)
    assert resolved.adapter is not None
    assert (resolved.adapter.id, resolved.adapter.name) == (name.id, str(name))
    assert resolved.adapter.path == f"adapters/org_acme/{name.id}"
    assert resolved.price.id == "card/smol/fine-tuned"


async def test_another_organization_s_model_is_exactly_as_one_that_does_not_exist(catalog: "Catalog") -> None:
    """I7."""
    name = str(await catalog.live(ACME))
    missing = name[:-4] + "0000"
    await catalog.aliases.store.point(ACME, "mine", model=name, adapter=None, actor=KEY)
    delete = partial(catalog.adapters.delete, actor=KEY)
    for call in (catalog.models.resolve, catalog.models.get, delete):
        for asked, unknown in ((name, missing), ("mine", "none")):
            with pytest.raises(ModelNotFound) as theirs:
                await call(UMBRA, asked)
            with pytest.raises(ModelNotFound) as none:
                await call(UMBRA, unknown)
            assert theirs.value.message.replace(asked, unknown) == none.value.message
            assert none.value.message == f"The model `{unknown}` does not exist or you do not have access to it."
            assert (theirs.value.code, theirs.value.param) == (none.value.code, none.value.param)
    assert [model.id for model in await catalog.models.list_models(UMBRA)] == ["smol"]
    for change in (catalog.adapters.promote(UMBRA, FineTunedName("", "", "", AdapterId(name[-16:])).id),):
        with pytest.raises(NotFound):
            await change
    await catalog.adapters.fail(UMBRA, AdapterId(name[-16:]), "not theirs")
    assert (await catalog.models.resolve(ACME, name)).adapter is not None


async def test_only_live_adapters_are_callable_and_listed(catalog: "Catalog") -> None:
    name = await catalog.checking()
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, str(name))
    await catalog.adapters.promote(ACME, name.id)
    await catalog.adapters.promote(ACME, name.id)
    assert [model.id for model in await catalog.models.list_models(ACME)] == ["smol", str(name)]
    shown = await catalog.models.get(ACME, str(name))
    assert (shown.id, shown.owned_by, shown.created) == (str(name), ACME, catalog.clock.now_ms() // 1000)
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    with pytest.raises(ModelNotFound):
        await catalog.models.get(ACME, str(name))
    with pytest.raises(Conflict):
        await catalog.adapters.promote(ACME, name.id)


async def test_what_no_feed_brings_reaches_a_gateway_in_a_second_and_endings_in_ten(catalog: "Catalog") -> None:
    gateway = catalog.another_gateway()
    name = await catalog.checking()
    with pytest.raises(ModelNotFound):
        await gateway.resolve(ACME, str(name))
    await catalog.adapters.promote(ACME, name.id)
    catalog.clock.advance(1.0)
    assert (await gateway.resolve(ACME, str(name))).adapter
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    catalog.clock.advance(10.0)
    with pytest.raises(ModelNotFound):
        await gateway.resolve(ACME, str(name))


async def test_a_flood_of_unknown_names_is_one_look_up_a_second(catalog: "Catalog") -> None:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "catalog_" in statement:
            seen.append(statement)

    await catalog.live()
    event.listen(catalog.database.engine.sync_engine, "before_cursor_execute", note)
    flood = [catalog.models.resolve(ACME, f"ft:smol:acme:x:{number}") for number in range(200)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert all(isinstance(answer, ModelNotFound) for answer in answers)
    assert len(seen) == 3  # revision, adapters, aliases
    for number in range(200):
        with pytest.raises(ModelNotFound):
            await catalog.models.resolve(ACME, f"other-{number}")
    assert len(seen) == 3
    catalog.clock.advance(1.0)
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, "other")
    assert len(seen) == 4  # the revision alone: nothing changed
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, "x" * 100_000)
    event.remove(catalog.database.engine.sync_engine, "before_cursor_execute", note)


async def test_without_a_price_nothing_is_callable_or_live(catalog: "Catalog") -> None:
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, "unpriced")
    name = await catalog.live()
    catalog.prices.fine_tuned = False
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, str(name))
    assert [model.id for model in await catalog.models.list_models(ACME)] == ["smol"]
    later = await catalog.checking()
    with pytest.raises(Conflict):
        await catalog.adapters.promote(ACME, later.id)


async def test_an_alias_resolves_to_the_model_s_own_name_and_ends_with_it(catalog: "Catalog") -> None:
    name = await catalog.live()
    await catalog.aliases.store.point(ACME, "bot", model=str(name), adapter=name.id, actor=KEY)
    await catalog.aliases.store.point(ACME, "small", model="smol", adapter=None, actor=KEY)
    assert (await catalog.models.resolve(ACME, "bot")).name == str(name)
    assert (await catalog.models.resolve(ACME, "small")).name == "smol"
    assert (await catalog.models.get(ACME, "bot")).id == str(name)
    newer = await catalog.live()
    await catalog.aliases.store.point(ACME, "bot", model=str(newer), adapter=newer.id, actor=KEY)
    await catalog.models.organization_changed(ACME)
    assert (await catalog.models.resolve(ACME, "bot")).name == str(newer)
    await catalog.adapters.delete(ACME, str(newer), actor=KEY)
    with pytest.raises(ModelNotFound):
        await catalog.models.resolve(ACME, "bot")
    assert [alias.id for alias in await catalog.aliases.store.all(ACME)] == ["small"]
    with pytest.raises(NotFound):
        await catalog.aliases.store.point(ACME, "bot", model=str(newer), adapter=newer.id, actor=KEY)
    with pytest.raises(NotFound):
        await catalog.aliases.store.point(UMBRA, "bot", model=str(name), adapter=name.id, actor=KEY)


async def test_while_sql_is_down_the_cache_serves_for_ten_minutes(catalog: "Catalog") -> None:
    name = str(await catalog.live())
    await catalog.models.resolve(ACME, name)
    dead = Database("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none")
    catalog.store._database = dead
    catalog.clock.advance(599)
    assert (await catalog.models.resolve(ACME, name)).adapter
    with pytest.raises(Unavailable):
        await catalog.models.resolve(UMBRA, name)
    catalog.clock.advance(2)
    with pytest.raises(Unavailable):
        await catalog.models.resolve(ACME, name)
    assert (await catalog.models.resolve(ACME, "smol")).base
    await dead.close()


async def test_registering_again_changes_nothing_and_never_another_s(catalog: "Catalog") -> None:
    name = await catalog.live()
    register = partial(
        catalog.adapters.register,
        project=ProjectId("proj_1"),
        path=f"adapters/org_acme/{name.id}",
        size=10,
        job=JobId("ftjob-1"),
        actor=KEY,
    )
    await register(ACME, name=name, digest="d" * 64)
    assert (await catalog.models.resolve(ACME, str(name))).adapter, "it is still live"
    with pytest.raises(Conflict):
        await register(ACME, name=name, digest="e" * 64)
    with pytest.raises(Conflict):
        await register(UMBRA, name=name, digest="d" * 64)
    for wrong in (("other", "acme", "bot"), ("smol", "ac:me", "bot"), ("smol", "acme", "Bot"), ("smol", "acme", "-")):
        with pytest.raises(InvalidRequest):
            await register(ACME, name=FineTunedName(*wrong, AdapterId("00")), digest="d")


async def test_a_failed_adapter_never_goes_live(catalog: "Catalog") -> None:
    name = await catalog.checking()
    await catalog.adapters.fail(ACME, name.id, "all of it is zero")
    await catalog.adapters.fail(ACME, AdapterId("never-registered"), "cancelled")
    (found,) = await catalog.operator_store.adapters(organization=ACME, state=None, after=None, limit=10)
    assert (found.state, found.reason) == ("draining", "all of it is zero")
    with pytest.raises(Conflict):
        await catalog.adapters.promote(ACME, name.id)


async def test_base_models_cannot_be_deleted(catalog: "Catalog") -> None:
    with pytest.raises(PermissionDenied):
        await catalog.adapters.delete(ACME, "smol", actor=KEY)
