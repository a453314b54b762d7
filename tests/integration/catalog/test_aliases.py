"""Aliases move, are rolled back in one call, and remember; each change is in the audit log with who made it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from support.fakes.authenticator import FixedAuthenticator
from tokenyard.catalog.aliases.store import KEPT_REVISIONS
from tokenyard.catalog.tables import AliasRevisionRow
from tokenyard.catalog.tenant_routes import tenant_router
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import AllowedModels, Principal
from tokenyard.web.errors import install_error_handlers

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
BOUND = "org_acme's key for its base models alone"


def principal(organization: OrganizationId) -> Principal:
    return Principal(organization, ProjectId("proj_1"), ApiKeyId("key_1"), 1)


class AliasApi:
    """The routes of aliases, as one tenant calls them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str = "", body: Any = None, *, who: str = ACME) -> httpx.Response:
        headers = {"authorization": f"Bearer {who}"}
        return await self._http.request(method, f"/v1/model_aliases{path}", json=body, headers=headers)

    async def change(self, body: Any, *, who: str = ACME) -> Any:
        answer = await self.call("POST", "/bot", body, who=who)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def models(self) -> list[tuple[int, str, int | None]]:
        found = (await self.call("GET", "/bot/revisions")).json()["data"]
        return [(one["revision"], one["model"], one["restores"]) for one in found]


@pytest.fixture
async def api(catalog: "Catalog") -> AsyncIterator[AliasApi]:
    app = FastAPI()
    tenants = {str(who): principal(who) for who in (ACME, UMBRA)}
    tenants[BOUND] = msgspec.structs.replace(principal(ACME), models=(AllowedModels("key", "key_1", ("smol",)),))
    app.state.authenticator = FixedAuthenticator(tenants)
    install_error_handlers(app)
    app.include_router(tenant_router(catalog.adapters, catalog.aliases))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield AliasApi(client)


async def test_it_moves_and_goes_back_in_one_call(api: AliasApi, catalog: "Catalog") -> None:
    one, two, three = [str(await catalog.live()) for _ in range(3)]
    await api.call("POST", body={"alias": "bot", "model": one})
    for model in (two, three):
        assert (await api.change({"model": model}))["model"] == model
        assert (await catalog.models.resolve(ACME, "bot")).name == model
    back = await api.change({"revision": "previous"})
    assert (back["model"], back["revision"]) == (two, 4)
    assert (await catalog.models.resolve(ACME, "bot")).name == two
    assert (await api.change({"revision": "previous"}))["model"] == one, "and further back, not forth again"
    assert (await api.change({"revision": 3}))["model"] == three
    assert await api.models() == [
        (6, three, 3),
        (5, one, 1),
        (4, two, 2),
        (3, three, None),
        (2, two, None),
        (1, one, None),
    ]
    assert (await api.call("GET", "/bot")).json()["revision"] == 6


async def test_the_same_change_again_is_no_change(api: AliasApi, catalog: "Catalog") -> None:
    one, two = [str(await catalog.live()) for _ in range(2)]
    for _ in range(2):
        await api.call("POST", body={"alias": "bot", "model": one})
    for body in ({"model": two}, {"model": two}, {"revision": 1}, {"revision": 1}):
        await api.change(body)
    assert [number for number, _, _ in await api.models()] == [3, 2, 1]


async def test_every_change_is_in_the_audit_log(api: AliasApi, catalog: "Catalog") -> None:
    one, two = [await catalog.live() for _ in range(2)]
    await api.call("POST", body={"alias": "bot", "model": str(one)})
    await api.change({"model": str(two)})
    await api.change({"revision": "previous"})
    await catalog.adapters.delete(ACME, str(one), actor=ApiKeyId("key_2"))
    entries = await catalog.tenancy.audit_log(ACME, before=None, limit=100)
    told = [
        (entry.type, entry.actor.api_key.id, entry.details, entry.before)
        for entry in reversed(entries)
        if entry.resource_id == "bot"
    ]
    assert told == [
        ("model_alias.created", "key_1", {"model": str(one), "revision": 1}, {}),
        ("model_alias.updated", "key_1", {"model": str(two), "revision": 2}, {"model": str(one), "revision": 1}),
        (
            *("model_alias.updated", "key_1", {"model": str(one), "revision": 3, "restores": 1}),
            {"model": str(two), "revision": 2},
        ),
        ("model_alias.deleted", "key_2", {}, {"model": str(one), "revision": 3}),
    ]
    assert (await api.call("GET", "/bot/revisions")).status_code == 404
    assert await catalog.tenancy.audit_log(UMBRA, before=None, limit=100) == []


async def test_there_is_no_way_back_to_what_is_gone(api: AliasApi, catalog: "Catalog") -> None:
    one, two = [str(await catalog.live()) for _ in range(2)]
    await api.call("POST", body={"alias": "bot", "model": one})
    for body in ({"revision": "previous"}, {"revision": 7}):
        answer = await api.call("POST", "/bot", body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "revision")
    await api.change({"model": two})
    await catalog.adapters.delete(ACME, one, actor=ApiKeyId("key_1"))
    answer = await api.call("POST", "/bot", {"revision": "previous"})
    assert answer.status_code == 409
    assert one in answer.json()["error"]["message"]
    assert (await catalog.models.resolve(ACME, "bot")).name == two, "it stays as it was"


async def test_a_change_says_one_thing(api: AliasApi, catalog: "Catalog") -> None:
    await api.call("POST", body={"alias": "bot", "model": "smol"})
    both = {"model": "smol", "revision": 1}
    wrong: tuple[Any, ...] = ({}, both, {"revision": "first"}, {"revision": 0}, {"revision": True}, {"alias": "x"}, [])
    for body in wrong:
        assert (await api.call("POST", "/bot", body)).status_code == 400, body
    assert (await api.call("POST", "/none", {"model": "smol"})).status_code == 404, "only a new alias is made elsewhere"


async def test_another_organization_s_alias_is_as_one_that_does_not_exist(api: AliasApi, catalog: "Catalog") -> None:
    """I7."""
    await api.call("POST", body={"alias": "bot", "model": str(await catalog.live())})
    calls: tuple[tuple[str, str, Any], ...] = (
        ("GET", "", None),
        ("GET", "/revisions", None),
        ("POST", "", {"model": "smol"}),
        ("POST", "", {"revision": 1}),
        ("DELETE", "", None),
    )
    for method, path, body in calls:
        theirs = await api.call(method, f"/bot{path}", body, who=UMBRA)
        none = await api.call(method, f"/nil{path}", body, who=UMBRA)
        assert (theirs.status_code, theirs.text.replace("bot", "nil")) == (404, none.text)
    assert len(await api.models()) == 1


async def test_a_key_rolls_back_only_to_models_that_it_may_use(api: AliasApi, catalog: "Catalog") -> None:
    await api.call("POST", body={"alias": "bot", "model": str(await catalog.live())})
    await api.change({"model": "smol"})
    refused = await api.call("POST", "/bot", {"revision": "previous"}, who=BOUND)
    assert refused.status_code == 403


async def test_of_many_changes_at_once_each_has_its_own_revision(api: AliasApi, catalog: "Catalog") -> None:
    models = [str(await catalog.live()) for _ in range(4)]
    bodies = [{"alias": "bot", "model": model} for model in models]
    answers = await asyncio.gather(*(api.call("POST", body=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    found = await api.models()
    assert [number for number, _, _ in found] == [4, 3, 2, 1]
    assert (await api.call("GET", "/bot")).json()["model"] == found[0][1]


async def test_two_that_roll_back_at_once_go_back_once(api: AliasApi, catalog: "Catalog") -> None:
    one, two, three = [str(await catalog.live()) for _ in range(3)]
    for model in (one, two, three):
        await api.call("POST", body={"alias": "bot", "model": model})
    await asyncio.gather(*(api.change({"revision": 2}) for _ in range(4)))
    assert [number for number, _, _ in await api.models()] == [4, 3, 2, 1]


async def test_an_alias_never_outlives_the_model_that_ends_meanwhile(api: AliasApi, catalog: "Catalog") -> None:
    for _ in range(5):
        name = str(await catalog.live())
        await asyncio.gather(
            api.call("POST", body={"alias": "bot", "model": name}),
            catalog.adapters.delete(ACME, name, actor=ApiKeyId("key_1")),
        )
        assert await catalog.aliases.store.all(ACME) == []


async def test_history_is_bounded(catalog: "Catalog") -> None:
    names = [await catalog.live() for _ in range(2)]
    for turn in range(KEPT_REVISIONS + 5):
        name = names[turn % 2]
        await catalog.aliases.store.point(ACME, "bot", model=str(name), adapter=name.id, actor=ApiKeyId("key_1"))
    kept = await catalog.aliases.store.revisions(ACME, "bot")
    assert [one.revision for one in kept] == list(range(KEPT_REVISIONS + 5, 5, -1))
    await catalog.aliases.store.delete(ACME, "bot", actor=ApiKeyId("key_1"))
    async with catalog.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(AliasRevisionRow)) == 0
