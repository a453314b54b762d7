"""A request is served, held and charged by its service tier, as far as its plan grants that."""

import json
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from tokenyard.core.budgets import wallet
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.money import Multiplier, PriceStep
from tokenyard.gateway.endpoints.table import CHAT, RESPONSES

GRANTED = {"flex": 2, "priority": 16}
STEPS = (PriceStep(0, Multiplier(8_000), {"priority": Multiplier(20_000)}),)
ASKED = [
    (None, "default", 4),
    ("auto", "default", 4),
    ("default", "default", 4),
    ("flex", "flex", 2),
    ("priority", "priority", 16),
    ("fast", "priority", 16),
]


@pytest.fixture(autouse=True)
def on_a_plan(gateway: GatewayStack) -> None:
    caller = gateway.keys.tenants[KEY]
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, weight=4, tiers=GRANTED, prices=STEPS)


def chat(tier: str | None, **more: object) -> dict[str, Any]:
    given: dict[str, Any] = {} if tier is None else {"service_tier": tier}
    return {"model": BASE.id, "messages": HELLO, "max_tokens": 3, **given, **more}


@pytest.mark.parametrize(("asked", "served", "weight"), ASKED)
async def test_the_tier_decides_the_weight_and_is_told(
    gateway: GatewayStack, asked: str | None, served: str, weight: int
) -> None:
    told = None if asked is None else served
    async with ClientSession() as session:
        whole = await (await gateway.post(session, chat(asked))).json()
        stream = await (await gateway.post(session, chat(asked, stream=True))).read()
        body: dict[str, object] = {"model": BASE.id, "input": "hello", "service_tier": asked, "store": False}
        response = await (await gateway.post(session, body, RESPONSES.path)).json()
    assert whole.get("service_tier") == told
    events = [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\n\n")[:-2]]
    assert {event.get("service_tier") for event in events} == {told}
    assert response["service_tier"] == served
    assert {(sent.claims.tier, sent.claims.weight) for sent in gateway.server.log} == {(served, weight)}
    assert not any("service_tier" in sent.body for sent in gateway.server.log)


@pytest.mark.parametrize("tier", ["flex", "priority", "fast"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tier_that_the_plan_does_not_have_is_refused(gateway: GatewayStack, tier: str, stream: bool) -> None:
    gateway.keys.tenants[KEY] = msgspec.structs.replace(gateway.keys.tenants[KEY], tiers={})
    response: dict[str, object] = {"model": BASE.id, "input": "x", "service_tier": tier}
    async with ClientSession() as session:
        for path, body in ((CHAT.path, chat(tier, stream=stream)), (RESPONSES.path, response)):
            refused = await gateway.post(session, body, path)
            error = (await refused.json())["error"]
            assert (refused.status, error["param"], error["code"]) == (400, "service_tier", "unsupported_value")
    assert gateway.server.log == []
    assert await gateway.events() == []


@pytest.mark.parametrize(
    ("tier", "price", "rates"),
    [("default", "test/test-model@0.8", (80, 800)), ("priority", "test/test-model@2", (200, 2000))],
)
async def test_what_is_settled_and_claimed_is_the_plan_s_price(
    gateway: GatewayStack, tier: str, price: str, rates: tuple[int, int]
) -> None:
    async with ClientSession() as session:
        assert await gateway.status(session, chat(tier)) == 200
    (settled,) = await gateway.settled()
    assert settled.claims.price == price
    await gateway.nothing_is_held()
    assert (await gateway.budget()).pending == 4 * rates[0] + 3 * rates[1]


@pytest.mark.parametrize(("missing", "status"), [(0, 200), (1, 429)])
async def test_the_worst_case_is_held_at_the_plan_s_price(gateway: GatewayStack, missing: int, status: int) -> None:
    (prompt,) = CHAT.parse(json.dumps(chat("priority")).encode()).prompts(BASE)
    gateway.budgets.set(wallet(ORGANIZATION), prompt.bound * 200 + 3 * 2_000 - missing)
    async with ClientSession() as session:
        assert await gateway.status(session, chat("priority")) == status


async def test_a_multiplier_that_is_not_in_force_yet_changes_nothing(gateway: GatewayStack) -> None:
    later = (PriceStep(10**15, Multiplier(5_000)),)
    gateway.keys.tenants[KEY] = msgspec.structs.replace(gateway.keys.tenants[KEY], prices=later)
    async with ClientSession() as session:
        assert await gateway.status(session, chat("default")) == 200
    (settled,) = await gateway.settled()
    assert settled.claims.price == "test/test-model"


async def test_a_model_of_a_server_elsewhere_has_no_tiers(gateway: GatewayStack) -> None:
    gateway.models.base = msgspec.structs.replace(BASE, server=ServerSource("https://models.example/v1", "theirs"))
    async with ClientSession() as session:
        refused = await gateway.post(session, chat("priority"))
        assert (refused.status, (await refused.json())["error"]["param"]) == (400, "service_tier")
