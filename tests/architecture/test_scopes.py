"""Every route of the API says which keys may call it, and the rule is in force."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import SecretStr

from support.source_tree import listed
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.gateway import application
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.core.principal import KeyScope
from tokenyard.gateway.app import Gateway
from tokenyard.gateway.endpoints.table import ENDPOINTS
from tokenyard.settings import Settings
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.web.auth import TenantWith, current_operator

OPEN = {"/health", "/ready", "/metrics", "/openapi.json", "/webhooks/stripe"}
"""Without any key: what comes to a webhook is signed."""
COUNTING = (
    *("/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize"),
    *("/v1/messages/count_tokens", "/v1/responses/input_tokens"),
)
"""They cost nothing and change nothing, so no key is looked up afresh for them."""
ANY_KEY = {"/v1/models", "/v1/models/{name:path}"}
SCOPES = {
    **dict.fromkeys(COUNTING, KeyScope.INFERENCE),
    "/v1/responses": KeyScope.INFERENCE,
    "/v1/chat/completions": KeyScope.INFERENCE,
    "/v1/evals": KeyScope.INFERENCE,
    "/v1/files": KeyScope.FILES,
    "/v1/fine_tuning/jobs": KeyScope.FINE_TUNING,
    "/v1/fine_tuning/sweeps": KeyScope.FINE_TUNING,
    "/v1/fine_tuning/alpha": KeyScope.FINE_TUNING,
    "/v1/fine_tuning/checkpoints": None,
    "/api/version": KeyScope.FINE_TUNING,
    "/api/jobs": KeyScope.FINE_TUNING,
    "/v1/models": KeyScope.FINE_TUNING,
    "/v1/model_aliases": KeyScope.FINE_TUNING,
    "/v1/organization/usage": KeyScope.BILLING,
    "/v1/organization/costs": KeyScope.BILLING,
    "/v1/organization/invoices": KeyScope.BILLING,
    "/v1/organization/billing_details": KeyScope.BILLING,
    "/v1/organization/credit_notes": KeyScope.BILLING,
    "/v1/organization/balance": KeyScope.BILLING,
    "/v1/organization/seals": KeyScope.BILLING,
    "/v1/organization/payments": KeyScope.BILLING,
    "/v1/organization/payment_methods": KeyScope.BILLING,
    "/v1/organization/credit": KeyScope.BILLING,
    "/v1/organization/budget_alerts": KeyScope.BILLING,
    "/v1/organization/projects": None,
    "/v1/organization/audit_logs": None,
    "/v1/webhook_endpoints": None,
    "/v1/webhook_event_types": None,
    "/v1/webhook_events": None,
}
"""By the beginning of paths; None is for keys that are for everything."""


@pytest.fixture
async def settings(tmp_path: Path, redis_url: str) -> Settings:
    made = Settings(data_dir=tmp_path, secret=SecretStr("s" * 32), redis_url=redis_url)
    await asyncio.to_thread(bring_up_to_date, made)
    return made


@pytest.fixture
async def gateway_app(settings: Settings) -> AsyncIterator[FastAPI]:
    async with application(settings, "all") as app:
        assert isinstance(app, Gateway)
        yield app.control_plane


async def test_every_route_has_one_rule(gateway_app: FastAPI) -> None:
    found = []
    for route in routes(gateway_app):
        rules = {call for call in calls(route.dependant) if call is current_operator or isinstance(call, TenantWith)}
        if len(rules) != (0 if route.path in OPEN else 1):
            found.append(f"{sorted(route.methods)} {route.path}: {len(rules)} rules")
    assert not found, listed(found)


async def test_every_rule_is_the_one_that_its_path_should_have(gateway_app: FastAPI) -> None:
    found = []
    for route in routes(gateway_app):
        for rule in calls(route.dependant):
            if rule is current_operator and not route.path.startswith("/admin"):
                found.append(f"{route.path} is an operator's")
            if isinstance(rule, TenantWith) and not _is_right(route, rule):
                found.append(f"{sorted(route.methods)} {route.path}: {rule.scope}")
    assert not found, listed(found)


async def test_a_key_is_looked_up_afresh_before_anything_changes(gateway_app: FastAPI) -> None:
    """A revoked key ends nothing and makes nothing more, also where no push reached this process."""
    found = [
        f"{sorted(route.methods)} {route.path}"
        for route in routes(gateway_app)
        for rule in calls(route.dependant)
        if isinstance(rule, TenantWith) and route.methods != {"GET"} and route.path not in COUNTING and not rule.fresh
    ]
    assert not found, listed(found)


@pytest.mark.parametrize("scope", list(KeyScope))
async def test_a_key_of_one_scope_is_let_in_there_and_nowhere_else(
    gateway_app: FastAPI, settings: Settings, scope: KeyScope
) -> None:
    secret = await scoped_key(settings, scope)
    wrong = []
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(gateway_app), base_url="http://gateway") as http:
        for route in routes(gateway_app):
            rule = next((call for call in calls(route.dependant) if isinstance(call, TenantWith)), None)
            if rule is None:
                continue
            for method in sorted(route.methods):
                path = route.path.replace(":path", "").replace("{", "").replace("}", "")
                answer = await http.request(method, path, headers={"authorization": f"Bearer {secret}"})
                missing = answer.status_code == 403 and answer.json()["error"]["code"] == "missing_scope"
                if missing == (rule.any_scope or rule.scope is scope):
                    wrong.append(f"{method} {route.path}: {answer.status_code}")
    assert not wrong, listed(wrong)


async def scoped_key(settings: Settings, scope: KeyScope) -> str:
    async with Foundation.opened(settings) as foundation:
        owner = await foundation.organizations.create(name="Acme", slug="acme", actor=BOOTSTRAP)
        _, secret = await foundation.api_keys.create(
            owner.id, owner.default_project_id, name="k", actor=BOOTSTRAP, rules={"scopes": lambda _none: [scope]}
        )
        return secret


def test_paid_endpoints_are_inference() -> None:
    """They pass no route: the request path itself checks the scope, and its own tests show that."""
    assert {SCOPES.get(endpoint.path, KeyScope.INFERENCE) for endpoint in ENDPOINTS} == {KeyScope.INFERENCE}


def routes(app: FastAPI) -> Iterator[APIRoute]:
    return (route for route in app.routes if isinstance(route, APIRoute))


def calls(dependant: Dependant) -> Iterator[object]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from calls(inner)


def _is_right(route: APIRoute, rule: TenantWith) -> bool:
    if route.path in ANY_KEY and route.methods == {"GET"}:
        return rule.any_scope
    expected = {scope for start, scope in SCOPES.items() if route.path == start or route.path.startswith(f"{start}/")}
    return expected == {rule.scope} and not rule.any_scope
