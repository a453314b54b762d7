"""Five hundred fine-tuned models of five organizations: resolved, listed and limited, and nothing slow for it."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from sqlalchemy import event

from support.gateway_stack import until
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from tokenyard.catalog.changes import models_changed
from tokenyard.catalog.tables import AdapterRow, AdapterState
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import ModelNotFound
from tokenyard.core.ids import OrganizationId, new_adapter_id
from tokenyard.storage.database import Database

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

OWNERS = [OrganizationId(f"org_{number}") for number in range(5)]
EACH = 100


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Note the statements that SQL is asked."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def many_live(database: Database, owner: OrganizationId, base: str, slug: str) -> list[str]:
    """Enter fine-tunes as if each had come its usual way; return their names, the oldest first."""
    names = [FineTunedName(base, slug, "bot", new_adapter_id()) for _ in range(EACH)]
    async with database.transaction() as session:
        for number, name in enumerate(names):
            session.add(
                AdapterRow(
                    **{"id": name.id, "organization": owner, "project": "proj_1", "job": "ftjob-1", "key": "key_1"},
                    **{"base": base, "name": str(name), "path": f"adapters/{owner}/{name.id}", "digest": "d" * 64},
                    **{"state": AdapterState.LIVE, "created_ms": number + 1, "live_ms": number + 1},
                )
            )
        await models_changed(session, owner, 1)
    return list(map(str, names))


async def test_however_many_there_are_a_name_costs_one_look_into_memory(catalog: "Catalog") -> None:
    names = {owner: await many_live(catalog.database, owner, "smol", owner) for owner in OWNERS}
    gateway = catalog.another_gateway()
    with counted(catalog.database) as asked:
        for owner, own in names.items():
            await gateway.resolve(owner, own[0])
        first = len(asked)
        for owner, own in names.items():
            for name in own:
                assert (await gateway.resolve(owner, name)).name == name
        assert len(asked) == first, "all of an organization's models are known after its first request"
        with pytest.raises(ModelNotFound):
            await gateway.resolve(OWNERS[0], names[OWNERS[1]][0])
        catalog.clock.advance(11)
        asked.clear()
        for name in names[OWNERS[0]]:
            await gateway.resolve(OWNERS[0], name)
        await until(lambda: not gateway._cache._loads)
        assert len([one for one in asked if "catalog_" in one]) <= 1, "one row says that nothing has changed"


async def test_they_are_listed_page_by_page(catalog: "Catalog") -> None:
    owner, pages, after = OWNERS[0], [], None
    names = await many_live(catalog.database, owner, "smol", "one")
    while found := await catalog.models.list_models(owner, after=after, limit=40):
        pages.append([model.id for model in found])
        after = found[-1].id
    assert list(itertools.chain(*pages)) == ["smol", *names]
    assert [len(page) for page in pages] == [40, 40, 21]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with running_gateways(tmp_path, 2) as made:
        yield made


async def test_through_two_gateways(fleet: GatewayFleet) -> None:
    tenants = {slug: await fleet.new_tenant(slug) for slug in ("one", "two", "three", "four", "five")}
    names = {}
    for slug in tenants:
        owner = (await fleet.foundation.tenancy_operator.organization(slug)).id
        names[slug] = await many_live(fleet.foundation.database, owner, MODEL, slug)
    await _they_are_called_and_kept_apart(fleet, tenants, names)
    await _they_are_listed(fleet, tenants["one"], names["one"])
    await _one_is_limited(fleet, names["two"])
    await _a_deployed_file_is_in_force(fleet, tenants["three"], names["three"][0])


async def _ask(fleet: GatewayFleet, gateway: int, key: str, model: str, **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **more}
    response = await fleet.call(gateway, "POST", "/v1/chat/completions", key, body)
    return response.status, await response.json()


async def _they_are_called_and_kept_apart(
    fleet: GatewayFleet, tenants: dict[str, str], names: dict[str, list[str]]
) -> None:
    took = []
    for slug, key in tenants.items():
        for number, name in enumerate(names[slug]):
            begun = time.monotonic()
            status, answer = await _ask(fleet, number % 2, key, name)
            took.append(time.monotonic() - begun)
            assert (status, answer["model"]) == (200, name)
        other = names["two" if slug == "one" else "one"][0]
        assert (await _ask(fleet, 0, key, other))[0] == 404
    took.sort()
    print(f"500 models, one after another: median {took[250]:.4f} s, p99 {took[495]:.4f} s")  # noqa: T201 - a figure


async def _they_are_listed(fleet: GatewayFleet, key: str, names: list[str]) -> None:
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{fleet.urls[1]}/v1", max_retries=0) as client:
        assert [model.id async for model in client.models.list()][-EACH:] == names
        page = await client.models.list(extra_query={"limit": 40, "after": names[79]})
        assert [model.id for model in page.data] == names[80:]
        with pytest.raises(openai.BadRequestError):
            await client.models.list(extra_query={"after": "ft:nothing"})
    async with anthropic.AsyncAnthropic(api_key=key, base_url=fleet.urls[0], max_retries=0) as client:
        assert [model.id async for model in client.models.list(limit=30)][-EACH:] == names
        with pytest.raises(anthropic.BadRequestError):
            await client.models.list(before_id=names[3])
    adapters, after = [], ""
    while True:
        shown = await fleet.admin("GET", f"/admin/adapters?limit=100&state=live{after}")
        adapters += [adapter["model"] for adapter in shown["data"]]
        after = f"&after={shown['last_id']}"
        if not shown["has_more"]:
            break
    assert len(set(adapters)) == len(adapters) == 5 * EACH


async def _one_is_limited(fleet: GatewayFleet, names: list[str]) -> None:
    limits = {names[0]: {"requests_per_minute": 1}, f"{names[1][:-3]}*": {"tokens_per_minute": 1}}
    made = await fleet.admin("POST", "/admin/organizations/two/api_keys", {"name": "limited", "model_limits": limits})
    key = str(made["value"])
    statuses = [(await _ask(fleet, number % 2, key, names[0]))[0] for number in range(3)]
    assert statuses == [200, 429, 429]
    assert (await _ask(fleet, 0, key, names[1]))[0] == 429
    asked = await asyncio.gather(*(_ask(fleet, number % 2, key, name) for number, name in enumerate(names[2:40])))
    assert {status for status, _ in asked} == {200}


async def _a_deployed_file_is_in_force(fleet: GatewayFleet, key: str, name: str) -> None:
    before = await fleet.admin("GET", "/admin/model_files")
    file = before["files"][MODEL]
    assert (await _ask(fleet, 0, key, name, max_tokens=4000))[0] == 200
    small = file.replace("context_length: 8192", "context_length: 2048")
    assert small != file
    refused = await fleet.call(0, "POST", "/admin/model_files", fleet.admin_key, {"files": [small, "id: broken"]})
    problem = (await refused.json())["error"]
    assert (refused.status, problem["code"], problem["param"]) == (400, "invalid_model_file", "files")
    assert (await fleet.admin("GET", "/admin/model_files"))["revision"] == before["revision"]
    checked = await fleet.admin("POST", "/admin/model_files/check", {"files": [small]})
    assert checked["models"] == [MODEL]
    assert (await _ask(fleet, 1, key, name, max_tokens=4000))[0] == 200, "checked, and not in force"
    another = small.replace(f"id: {MODEL}", "id: another")
    async with asyncio.timeout(5):
        await fleet.admin("POST", "/admin/model_files", {"files": [small, another]})
        for gateway in (0, 1):
            await until(partial(_is_refused, fleet, gateway, key, name))
    assert (await fleet.admin("POST", "/admin/model_files", {"files": [file]}))["revision"] == before["revision"] + 2


async def _is_refused(fleet: GatewayFleet, gateway: int, key: str, model: str) -> bool:
    return (await _ask(fleet, gateway, key, model, max_tokens=4000))[0] == 400
