"""The catalog's routes over HTTP."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from support.fakes.authenticator import FixedAuthenticator
from tokenyard.catalog.operator_routes import operator_router
from tokenyard.catalog.tenant_routes import models_router, tenant_router
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.models import ModelTask, SamplingDefaults
from tokenyard.core.principal import AllowedModels, Principal
from tokenyard.web.errors import install_error_handlers

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

BOUND = "org_acme's key for its fine-tunes alone"
ACME = OrganizationId("org_acme")


def tenant(organization: str) -> Principal:
    return Principal(OrganizationId(organization), ProjectId("proj_1"), ApiKeyId("key_1"), 1)


def by(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {who}"}


@pytest.fixture
async def http(catalog: "Catalog") -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    tenants = {who: tenant(who) for who in ("org_acme", "org_umbra")}
    bound = AllowedModels("project", "proj_1", ("ft:*",))
    tenants[BOUND] = msgspec.structs.replace(tenant("org_acme"), models=(bound,))
    app.state.authenticator = FixedAuthenticator(tenants, "operator")
    install_error_handlers(app)
    app.include_router(models_router(catalog.models))
    app.include_router(tenant_router(catalog.adapters, catalog.aliases))
    app.include_router(
        operator_router(catalog.operator_store, catalog.adapters, catalog.bases, catalog.prices, catalog.clock)
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def test_a_tenant_deletes_its_own_fine_tune_and_nobody_else_s(
    http: httpx.AsyncClient, catalog: "Catalog"
) -> None:
    name = str(await catalog.live())
    foreign = await http.delete(f"/v1/models/{name}", headers=by("org_umbra"))
    unknown = await http.delete(f"/v1/models/{name[:-2]}00", headers=by("org_umbra"))
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"]["code"] == "model_not_found"
    assert foreign.text.replace(name, "x") == unknown.text.replace(f"{name[:-2]}00", "x")
    assert (await http.delete("/v1/models/smol", headers=by("org_acme"))).status_code == 403
    deleted = await http.delete(f"/v1/models/{name}", headers=by("org_acme"))
    assert deleted.json() == {"id": name, "object": "model", "deleted": True}
    assert (await http.delete(f"/v1/models/{name}", headers=by("org_acme"))).status_code == 404


async def test_a_model_tells_the_default_sampling_that_its_file_states(
    http: httpx.AsyncClient, catalog: "Catalog"
) -> None:
    path = "/v1/models/{}".format
    fine_tune = str(await catalog.live())
    plain = (await http.get(path("smol"), headers=by("org_acme"))).json()
    assert set(plain) == {"id", "object", "created", "owned_by", "task", "context_length"}
    sampling = SamplingDefaults(temperature=0.2, top_k=40)
    catalog.bases._models["smol"] = msgspec.structs.replace(catalog.bases._models["smol"], sampling=sampling)
    for model in ("smol", fine_tune):
        told = (await http.get(path(model), headers=by("org_acme"))).json()
        assert told["sampling"] == {"temperature": 0.2, "top_k": 40}
    listed = (await http.get("/v1/models", headers=by("org_acme"))).json()
    assert [sorted(model) for model in listed["data"]] == [["created", "id", "object", "owned_by"]] * 2


async def test_what_a_key_may_not_use_is_not_shown_to_it(http: httpx.AsyncClient, catalog: "Catalog") -> None:
    name = str(await catalog.live())
    listed = (await http.get("/v1/models", headers=by(BOUND))).json()["data"]
    assert [model["id"] for model in listed] == [name]
    assert (await http.get(f"/v1/models/{name}", headers=by(BOUND))).status_code == 200
    for refused in (
        await http.get("/v1/models/smol", headers=by(BOUND)),
        await http.post("/v1/model_aliases", json={"alias": "chat", "model": "smol"}, headers=by(BOUND)),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_found")
    assert (await http.get("/v1/models/none", headers=by(BOUND))).status_code == 404
    await http.post("/v1/model_aliases", json={"alias": "chat", "model": "smol"}, headers=by("org_acme"))
    assert (await http.get("/v1/models/chat", headers=by(BOUND))).status_code == 403, "under no other name either"


async def test_a_model_tells_what_it_is_for(http: httpx.AsyncClient, catalog: "Catalog") -> None:
    embedder = msgspec.structs.replace(catalog.bases._models["smol"], task=ModelTask.EMBEDDING, dimensions=(8, 4))
    for base, task, dimensions in (
        (catalog.bases._models["smol"], "chat", None),
        (embedder, "embedding", [8, 4]),
    ):
        catalog.bases._models["smol"] = base
        told = (await http.get("/v1/models/smol", headers=by("org_acme"))).json()
        assert (told["task"], told.get("dimensions"), told["context_length"]) == (task, dimensions, 100)


async def test_aliases_are_the_organization_s_own(http: httpx.AsyncClient, catalog: "Catalog") -> None:
    name = str(await catalog.live())
    made = await http.post("/v1/model_aliases", json={"alias": "bot", "model": name}, headers=by("org_acme"))
    assert (made.json()["id"], made.json()["model"]) == ("bot", name)
    assert (await catalog.models.resolve(ACME, "bot")).name == name
    assert (await http.get("/v1/model_aliases", headers=by("org_umbra"))).json()["data"] == []
    steal = await http.post("/v1/model_aliases", json={"alias": "bot", "model": name}, headers=by("org_umbra"))
    assert steal.status_code == 404
    assert (await http.delete("/v1/model_aliases/bot", headers=by("org_umbra"))).status_code == 404
    for bad in ("smol", "ft:x", "Bot", ""):
        refused = await http.post("/v1/model_aliases", json={"alias": bad, "model": name}, headers=by("org_acme"))
        assert refused.status_code in {400, 409}
    assert (await http.delete("/v1/model_aliases/bot", headers=by("org_acme"))).json()["deleted"] is True
    assert (await http.get("/v1/model_aliases", headers=by("org_acme"))).json()["data"] == []


async def test_operators_see_all_models_and_adapters(http: httpx.AsyncClient, catalog: "Catalog") -> None:
    live, checking = await catalog.live(), await catalog.checking(OrganizationId("org_umbra"))
    models = (await http.get("/admin/models", headers=by("operator"))).json()["data"]
    assert [(model["id"], model["callable"], model["adapters"]) for model in models] == [
        ("smol", True, {"live": 1, "checking": 1}),
        ("unpriced", False, {}),
    ]
    seen, after = [], ""
    for _ in range(2):
        found = (await http.get(f"/admin/adapters?limit=1{after}", headers=by("operator"))).json()
        seen += [row["model"] for row in found["data"]]
        after = f"&after={found['last_id']}"
    assert set(seen) == {str(live), str(checking)}
    assert found["has_more"] is False
    mine = (await http.get("/admin/adapters?organization=org_umbra&state=checking", headers=by("operator"))).json()
    assert [row["model"] for row in mine["data"]] == [str(checking)]
    for path in ("/admin/models", "/admin/adapters"):
        assert (await http.get(path, headers=by("org_acme"))).status_code == 403


async def test_operators_take_an_adapter_out_of_service(http: httpx.AsyncClient, catalog: "Catalog") -> None:
    name = await catalog.live()
    await http.post("/v1/model_aliases", json={"alias": "bot", "model": str(name)}, headers=by("org_acme"))
    path = f"/admin/adapters/{name.id}"
    assert (await http.delete(path, headers=by("org_acme"))).status_code == 403
    for _ in range(2):
        told = (await http.delete(path, headers=by("operator"))).json()
        assert (told["state"], told["reason"]) == ("draining", "retired by the operator")
    for model in (str(name), "bot"):
        assert (await http.get(f"/v1/models/{model}", headers=by("org_acme"))).status_code == 404
    assert (await http.delete("/admin/adapters/none", headers=by("operator"))).status_code == 404
    noted = [(kind, resource) for kind, _, resource in await catalog.noted()]
    assert noted[-2:] == [("adapter.draining", name.id), ("model_alias.deleted", "bot")]
