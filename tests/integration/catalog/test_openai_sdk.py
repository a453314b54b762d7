"""OpenAI's own client lists, reads and deletes models."""

from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai.types import Model

from support.fakes.authenticator import FixedAuthenticator
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.catalog.tenant_routes import models_router, tenant_router
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal
from tokenyard.web.errors import install_error_handlers

if TYPE_CHECKING:
    from conftest import Catalog


def tenant(organization: str) -> Principal:
    return Principal(OrganizationId(organization), ProjectId("proj_1"), ApiKeyId("key_1"), 1)


async def test_models_through_the_sdk(catalog: "Catalog") -> None:
    name = str(await catalog.live())
    app = FastAPI()
    app.state.authenticator = FixedAuthenticator({who: tenant(who) for who in ("org_acme", "org_umbra")})
    install_error_handlers(app)
    app.include_router(models_router(catalog.models))
    app.include_router(tenant_router(catalog.models, catalog.adapters, catalog.store, catalog.bases))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    headers = {"authorization": "Bearer org_acme"}
    async with http:
        own = openai.AsyncOpenAI(api_key="org_acme", base_url="http://gateway/v1", http_client=http, max_retries=0)
        other = own.with_options(api_key="org_umbra")
        assert [model.id async for model in own.models.list()] == ["smol", name]
        assert [model.id async for model in other.models.list()] == ["smol"]
        assert (await own.models.retrieve(name)).owned_by == "org_acme"
        for call in (other.models.retrieve, other.models.delete):
            with pytest.raises(openai.NotFoundError) as refused:
                await call(name)
            assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        check_openai_schema((await http.get("http://gateway/v1/models", headers=headers)).json(), "ListModelsResponse")
        for model in ("smol", name):
            sent = (await http.get(f"http://gateway/v1/models/{model}", headers=headers)).json()
            check_openai_type(sent, Model)
            check_openai_schema(sent, "Model")
        deleted = await own.models.delete(name)
        assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
        check_openai_schema(deleted.to_dict(), "DeleteModelResponse")
        assert [model.id async for model in own.models.list()] == ["smol"]
        with pytest.raises(openai.PermissionDeniedError):
            await own.models.delete("smol")
