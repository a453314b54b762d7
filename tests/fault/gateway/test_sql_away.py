"""SQL is away: whatever needs it answers 503 in OpenAI's shape, says when to come back, and carries its request id."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse, ClientSession, FormData
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from redis.asyncio import Redis

from support.fakes.admission_requests import principal
from support.fakes.authenticator import FixedAuthenticator
from support.fakes.gateway_ports import BASE
from support.finetune.rows import rows
from support.gateway_stack import HELLO, gateway_stack
from support.servers.asgi import running
from tokenyard.bootstrap.gateway import application
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard_billing.wallets.budgets import SqlBudgets

NOWHERE = "postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none"
TENANT, OPERATOR = "ty-tenant", "ty-operator"
LIMITS: dict[str, object] = {"limits": {"concurrency": 3}}
BODIES: dict[str, dict[str, object]] = {
    "POST /admin/organizations": {"name": "Acme", "slug": "acme"},
    "PATCH /admin/organizations/{organization}": LIMITS,
    "POST /admin/organizations/{organization}/projects": {"name": "Website"},
    "PATCH /admin/organizations/{organization}/projects/{project}": LIMITS,
    "POST /admin/organizations/{organization}/api_keys": {"name": "ci"},
    "PATCH /admin/organizations/{organization}/api_keys/{key}": LIMITS,
    "POST /admin/operator_keys": {"name": "laptop"},
    "POST /admin/organizations/{organization}/credits": {"amount": 1, "reason": "welcome"},
    "POST /admin/dead_letters/send_again": {"stream": "{0}:usage", "entry": "1-1"},
    "POST /v1/organization/projects/{project}/api_keys": {"name": "ci"},
    "POST /v1/model_aliases": {"alias": "best", "model": "smollm2-135m-instruct"},
    "POST /v1/chat/completions/{completion}": {"metadata": {"a": "b"}},
    "POST /v1/fine_tuning/jobs": {"model": "smollm2-135m-instruct", "training_file": "file-1"},
    "POST /v1/fine_tuning/jobs/estimate": {"model": "smollm2-135m-instruct", "training_file": "file-1"},
    "POST /api/jobs/": {"entrypoint": "tokenyard-train --model smollm2-135m-instruct --training-file file-1"},
}
WITHOUT_SQL = {
    *("GET /health", "HEAD /health", "GET /ready", "HEAD /ready", "GET /metrics", "GET /openapi.json"),
    *("GET /api/version", "GET /v1/webhook_event_types"),
    # Without a provider of payments they are not there.
    *("POST /webhooks/stripe", "GET /v1/organization/payment_methods"),
    "POST /v1/organization/payment_methods/setup",
    "POST /v1/organization/payment_methods/{method}/default",
    "DELETE /v1/organization/payment_methods/{method}",
}


@pytest.fixture
async def control_plane(redis_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    settings = Settings(
        data_dir=tmp_path,
        secret=SecretStr("s" * 32),
        database_url=NOWHERE,
        redis_url=redis_url,
        ray_token_file=tmp_path,
    )
    async with application(settings, "control") as app:
        assert isinstance(app, FastAPI)
        app.state.authenticator = FixedAuthenticator({TENANT: principal()}, OPERATOR)
        yield app


async def check_refusal(reply: ClientResponse) -> None:
    assert reply.status == 503, await reply.text()
    error = (await reply.json())["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "server_is_overloaded")
    assert "try again" in error["message"]
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["x-request-id"].startswith("req_")


async def test_every_route_of_the_control_plane(control_plane: FastAPI) -> None:
    routes = {
        f"{method} {route.path}"
        for route in control_plane.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes >= BODIES.keys()
    refused = set()
    async with running(control_plane) as url, ClientSession(url) as session:
        for name in sorted(routes - WITHOUT_SQL):
            async with await call(session, name) as reply:
                assert reply.headers["x-request-id"], name
                # What wants a body that this test does not know is not read so far.
                if reply.status != 400 or name in BODIES:
                    await check_refusal(reply)
                    refused.add(name)
    assert len(refused) > 50


async def call(session: ClientSession, name: str) -> ClientResponse:
    method, path = name.split()
    key = OPERATOR if path.startswith("/admin") else TENANT
    query = {"start_time": "1"} if path.endswith(("/usage", "/costs", "/completions")) else {}
    filled = re.sub(r"\{.*?\}", "proj_test" if "projects" in path else "x", path)
    headers = {"authorization": f"Bearer {key}"}
    return await session.request(method, filled, json=BODIES.get(name), params=query, headers=headers)


async def test_an_upload(control_plane: FastAPI) -> None:
    form = FormData({"purpose": "fine-tune"})
    form.add_field("file", rows(20), filename="teach.jsonl")
    async with running(control_plane) as url, ClientSession(url) as session:
        async with session.post("/v1/files", data=form, headers={"authorization": f"Bearer {TENANT}"}) as reply:
            await check_refusal(reply)


async def test_a_paid_request_whose_budget_redis_does_not_have(redis: Redis, tmp_path: Path) -> None:
    database = Database(NOWHERE)
    source = SqlBudgets(database).load
    async with gateway_stack(redis, tmp_path, budget_source=source) as gateway, ClientSession() as session:
        reply = await gateway.post(session, {"model": BASE.id, "messages": HELLO})
        await check_refusal(reply)
        await gateway.nothing_is_held()
        assert gateway.server.log == []
    await database.close()
