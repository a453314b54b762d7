"""Redis goes away under two gateways: who is on a plan with a local share goes on, and the books are exact after it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import ClientResponse

from support.billing.stand import balance, charges, live_budget, reconciler, stream_length, worker
from support.fakes.model_server import Behaviour
from support.fakes.rate_cards import rate_card, stated, write_file
from support.gateway_stack import HELLO, until
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from tokenyard.core.ids import OrganizationId, request_of
from tokenyard.limits.sweeper import Sweeper
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Charge

OUTPUT_DOLLARS = "400"  # for a million tokens
OPENING_NANO = 10_000_000
SPEND_NANO = 20_000_000
CHAT = "/v1/chat/completions"
PLAN = {"name": "postpaid", "local_share": {"percent": 50, "spend_dollars": "0.02"}}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    (tmp_path / "prices").mkdir()
    write_file(tmp_path / "prices", stated("dear", 0, output=OUTPUT_DOLLARS))
    more: dict[str, Any] = {"prices_dir": tmp_path / "prices", "hold_lease_ms": 2_000, "hold_renewal_ms": 500}
    async with running_gateways(tmp_path, 2, opening_credit_dollars="0.01", **more) as running:
        await running.admin("POST", "/admin/plans", PLAN)
        yield running


async def _new_tenant(fleet: GatewayFleet, slug: str, *, on_plan: bool, credit_nano: int = 0) -> str:
    """Return a key of a new organization, which both gateways have served once."""
    key = await fleet.new_tenant(slug)
    if on_plan:
        await fleet.admin("PATCH", f"/admin/organizations/{slug}", {"plan": "postpaid"})
    if credit_nano:
        credit = {"amount": credit_nano, "reason": "more"}
        await fleet.admin("POST", f"/admin/organizations/{slug}/credits", credit)
    for gateway in range(2):
        assert (await fleet.chat(gateway, key, max_tokens=1)).status == 200
    return key


async def _organization(fleet: GatewayFleet, slug: str) -> OrganizationId:
    return OrganizationId((await fleet.admin("GET", f"/admin/organizations/{slug}", gateway=1))["id"])


async def _stream(fleet: GatewayFleet, gateway: int, key: str, behaviour: Behaviour) -> ClientResponse:
    """Begin a stream, with a model server that behaves so from now on."""
    fleet.server.behaviour = behaviour
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "stream": True}
    response = await fleet.http.post(fleet.urls[gateway] + CHAT, json=body, headers={"authorization": f"Bearer {key}"})
    assert response.status == 200, await response.text()
    return response


async def _kill_gateway(fleet: GatewayFleet, gateway: int) -> None:
    port = fleet.urls[gateway].rpartition(":")[2]
    for child in psutil.Process().children():
        if child.environ().get("TOKENYARD_GATEWAY_PORT") == port:
            child.kill()


async def _books(fleet: GatewayFleet, *organizations: OrganizationId) -> Mapping[str, Charge]:
    """Let the ledger take in everything; return the charges by request, with which all books agree."""
    foundation = fleet.foundation
    prices = PriceList([rate_card("dear", 0, output=OUTPUT_DOLLARS)])
    stand = worker(foundation.database, foundation.redis, prices=prices, report_wait_ms=0)
    sent = {request_of(sent.claims.attempt) for sent in fleet.server.log}
    async with asyncio.timeout(60):
        while True:
            await Sweeper(foundation.redis, renewal_ms=0).sweep()
            await stand.consumer.step()
            found = await charges(foundation.database)
            live = [await live_budget(foundation.redis, organization) for organization in organizations]
            waiting = [await stream_length(foundation.redis, organization) for organization in organizations]
            if sent <= found.keys() and not any(waiting) and not any(one["pending"] or one["held"] for one in live):
                break
            await asyncio.sleep(0.1)
    await stand.leases.release()
    await foundation.outbox.step()
    report = await reconciler(foundation.database, foundation.redis).reconcile()
    assert report.ok, report
    return found


async def test_each_request_is_charged_once_also_of_a_gateway_that_is_killed(fleet: GatewayFleet) -> None:
    key = await _new_tenant(fleet, "acme", on_plan=True, credit_nano=10**9)
    stranger = await _new_tenant(fleet, "other", on_plan=False, credit_nano=10**9)
    behaviour = Behaviour(tokens=2)
    fleet.server.behaviour = behaviour
    await asyncio.to_thread(fleet.valkey.kill)

    begun = len(fleet.server.log)
    for gateway in (0, 1, 0, 1):
        assert (await fleet.chat(gateway, key, max_tokens=2)).status == 200
        assert (await fleet.chat(gateway, stranger, max_tokens=2)).status == 503
    keyed = await fleet.http.post(
        fleet.urls[1] + CHAT,
        json={"model": MODEL, "messages": HELLO},
        headers={"authorization": f"Bearer {key}", "idempotency-key": "order 17"},
    )
    assert keyed.status == 503
    assert len(fleet.server.log) == begun + 4

    left = await _stream(fleet, 1, key, Behaviour(tokens=8, silent_at=3))
    await until(lambda: fleet.server.log[-1].completion_tokens == 3)
    left.close()
    await until(lambda: fleet.server.log[-1].aborted)
    lost = await _stream(fleet, 0, key, Behaviour(tokens=8, silent_at=5))
    await until(lambda: fleet.server.log[-1].completion_tokens == 5)
    await _kill_gateway(fleet, 0)
    await until(lambda: fleet.server.log[-1].aborted)
    lost.close()
    through = await _stream(fleet, 1, key, Behaviour(tokens=8, token_delay_s=0.3))

    await asyncio.to_thread(fleet.valkey.start)
    fleet.server.behaviour = behaviour
    await until(lambda: _serves(fleet, stranger))
    assert (await through.read()).endswith(b"data: [DONE]\n\n")

    organizations = [await _organization(fleet, slug) for slug in ("acme", "other")]
    found = await _books(fleet, *organizations)
    expected = {request_of(sent.claims.attempt): sent.completion_tokens for sent in fleet.server.log}
    assert {request: charge.completion_tokens for request, charge in found.items()} == expected
    rules = [found[request_of(sent.claims.attempt)].rule for sent in fleet.server.log[begun : begun + 7]]
    assert rules == ["completed"] * 4 + ["client_left", "gateway_lost", "completed"]
    for organization in organizations:
        spent = sum(charge.amount for charge in found.values() if charge.organization == organization)
        assert await balance(fleet.foundation.database, organization) == OPENING_NANO + 10**9 - spent


async def _serves(fleet: GatewayFleet, key: str) -> bool:
    return (await fleet.chat(1, key, max_tokens=2)).status == 200


async def test_a_wallet_is_overdrawn_by_no_more_than_the_amount(fleet: GatewayFleet) -> None:
    """And who is overdrawn has nothing more in the next outage."""
    fleet.server.behaviour = Behaviour(tokens=8)
    key = await _new_tenant(fleet, "acme", on_plan=True)
    while (await fleet.chat(0, key)).status == 200:
        pass
    await asyncio.to_thread(fleet.valkey.kill)
    served = 0
    while (response := await fleet.chat(0, key)).status == 200:
        served += 1
    assert response.status == 503
    assert served > 2
    await asyncio.to_thread(fleet.valkey.start)

    organization = await _organization(fleet, "acme")
    spent = sum(charge.amount for charge in (await _books(fleet, organization)).values())
    left = await balance(fleet.foundation.database, organization)
    assert left == OPENING_NANO - spent
    assert -SPEND_NANO <= left < 0
    assert (await live_budget(fleet.foundation.redis, organization))["ledger"] == left
    refused = await fleet.chat(0, key)
    assert (refused.status, (await refused.json())["error"]["code"]) == (429, "credit_balance_exhausted")
    await asyncio.to_thread(fleet.valkey.kill)
    assert (await fleet.chat(0, key)).status == 503
