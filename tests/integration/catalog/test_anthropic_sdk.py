"""Anthropic's own client lists and reads models."""

from typing import TYPE_CHECKING

import anthropic
import httpx2
import pytest
from anthropic.types import ModelInfo
from fastapi import FastAPI

from support.anthropic_client import error_of
from support.fakes.authenticator import FixedAuthenticator
from tokenyard.catalog.tenant_routes import models_router
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal
from tokenyard.gateway.endpoints.anthropic.unpaid_replies import AnthropicReplies
from tokenyard.web.app import create_app

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

URL = "http://gateway"
ACME = Principal(OrganizationId("org_acme"), ProjectId("proj_1"), ApiKeyId("key_1"), 1)


def _app(catalog: "Catalog") -> FastAPI:
    keys = FixedAuthenticator({"org_acme": ACME})
    return create_app(title="models", routers=[models_router(catalog.models)], authenticator=keys)


async def test_models_through_the_sdk(catalog: "Catalog") -> None:
    name = str(await catalog.live())
    transport = httpx2.ASGITransport(AnthropicReplies(_app(catalog)))
    async with httpx2.AsyncClient(transport=transport) as http:
        client = anthropic.AsyncAnthropic(api_key="org_acme", base_url=URL, http_client=http, max_retries=0)
        listed = [model async for model in client.models.list(limit=1)]
        assert [model.id for model in listed] == ["smol", name]
        one = await client.models.retrieve(name)
        assert one == listed[1]
        ModelInfo.model_validate(one.to_dict())
        assert one.created_at.year >= 2023
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.models.retrieve("nothing")
        assert error_of(missing.value)["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="ty-unknown").models.list()


async def test_others_see_openais_list(catalog: "Catalog") -> None:
    transport = httpx2.ASGITransport(AnthropicReplies(_app(catalog)))
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
        answer = (await http.get("/v1/models", headers={"authorization": "Bearer org_acme"})).json()
        assert answer["object"] == "list"
        refused = await http.get("/v1/models")
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
