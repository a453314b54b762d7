"""OpenAI's own client lists, reads and deletes models."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx2
import openai
import pytest
from fastapi import FastAPI
from openai.types import Model, ModelDeleted

from support.fakes.authenticator import FixedAuthenticator
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.catalog.tenant_routes import models_router, tenant_router
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal
from tokenyard.web.errors import install_error_handlers

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog


URL = "http://gateway/v1"


def tenant(organization: str) -> Principal:
    return Principal(OrganizationId(organization), ProjectId("proj_1"), ApiKeyId("key_1"), 1)


@pytest.fixture
async def http(catalog: "Catalog") -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.state.authenticator = FixedAuthenticator({who: tenant(who) for who in ("org_acme", "org_umbra")})
    install_error_handlers(app)
    app.include_router(models_router(catalog.models))
    app.include_router(tenant_router(catalog.adapters, catalog.aliases))
    headers = {"authorization": "Bearer org_acme"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), headers=headers) as client:
        yield client


async def test_models_through_the_sdk(catalog: "Catalog", http: httpx2.AsyncClient) -> None:
    name = str(await catalog.live())
    own = openai.AsyncOpenAI(api_key="org_acme", base_url=URL, http_client=http, max_retries=0)
    other = own.with_options(api_key="org_umbra")
    assert [model.id async for model in own.models.list()] == ["smol", name]
    assert [model.id async for model in other.models.list()] == ["smol"]
    assert (await own.models.retrieve(name)).owned_by == "org_acme"
    for call in (other.models.retrieve, other.models.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            await call(name)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    deleted = await own.models.delete(name)
    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    assert [model.id async for model in own.models.list()] == ["smol"]
    with pytest.raises(openai.PermissionDeniedError):
        await own.models.delete("smol")


async def test_models_have_the_fields_of_openai_s_types(catalog: "Catalog", http: httpx2.AsyncClient) -> None:
    name = str(await catalog.live())
    for model in ("smol", name):
        told = (await http.get(f"{URL}/models/{model}")).json()
        assert {own: told.pop(own) for own in ("task", "context_length")} == {"task": "chat", "context_length": 100}
        check_openai_type(told, Model)
    for listed in (await http.get(f"{URL}/models")).json()["data"]:
        check_openai_type(listed, Model)
    check_openai_type((await http.delete(f"{URL}/models/{name}")).json(), ModelDeleted)


async def test_models_are_as_openai_s_schemas_say(catalog: "Catalog", http: httpx2.AsyncClient) -> None:
    name = str(await catalog.live())
    check_openai_schema((await http.get(f"{URL}/models")).json(), "ListModelsResponse")
    told = (await http.get(f"{URL}/models/{name}")).json()
    check_openai_schema({one: told[one] for one in told if one not in ("task", "context_length")}, "Model")
    check_openai_schema((await http.delete(f"{URL}/models/{name}")).json(), "DeleteModelResponse")
