"""OpenAI's own client lists, reads and deletes models."""

from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fastapi import FastAPI
from tokenyard.gateway.models import router as models_router

from tokenyard.catalog.routes import router
from tokenyard.core.errors import PermissionDenied
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Operator, Principal
from tokenyard.web.errors import install_error_handlers

if TYPE_CHECKING:
    from conftest import Catalog


class Door:
    """The secret is the organization's id."""

    async def tenant(self, secret: str) -> Principal:
        return Principal(OrganizationId(secret), ProjectId("proj_1"), ApiKeyId("key_1"), 1)

    async def operator(self, secret: str) -> Operator:
        raise PermissionDenied("no")


async def test_models_through_the_sdk(catalog: "Catalog") -> None:
    name = str(await catalog.live())
    app = FastAPI()
    app.state.authenticator = Door()
    install_error_handlers(app)
    # In the gateway's order: its own routes first.
    app.include_router(models_router(catalog.models))
    app.include_router(router(catalog.models, catalog.adapters, catalog.store, catalog.bases))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
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
        deleted = await own.models.delete(name)
        assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
        assert [model.id async for model in own.models.list()] == ["smol"]
        with pytest.raises(openai.PermissionDeniedError):
            await own.models.delete("smol")
