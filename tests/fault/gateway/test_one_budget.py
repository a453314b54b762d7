"""Three gateway processes, one dollar, a ledger that lags half a minute, and clients half of whom leave early."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector

from support.billing.stand import balance, charges, live_budget, reconciler, stream_length, worker
from support.fakes.rate_cards import rate_card, stated, write_file
from support.redis_reader import read_scope
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from support.servers.postgres import empty_postgres
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.limits.sweeper import Sweeper
from tokenyard_billing.pricing.prices import PriceList

GATEWAYS = 3
CALLS = 1_000
DOLLAR = 10**9
LAG_S = 30.0
OUTPUT_DOLLARS = "400"  # for a million tokens: so dear that 300 whole answers cost the dollar
MAX_TOKENS = 8
TOKENS_PER_MINUTE = 900
PART_MS, PARTS = 5_000, 12  # of a minute's window


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.long), "postgres"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    (tmp_path / "prices").mkdir()
    write_file(tmp_path / "prices", stated("dear", 0, output=OUTPUT_DOLLARS))
    url = "" if request.param == "sqlite" else await empty_postgres(request.getfixturevalue("postgres_url"))
    async with running_gateways(
        tmp_path, GATEWAYS, database_url=url, opening_credit_dollars="1", prices_dir=tmp_path / "prices"
    ) as running:
        yield running


class Crowd:
    """Clients that all begin at once and come back until they were served, or left, or the ledger wakes up."""

    def __init__(self, fleet: GatewayFleet, session: ClientSession) -> None:
        self._fleet = fleet
        self._session = session
        self._chance = random.Random(7)
        self._until = asyncio.get_running_loop().time() + LAG_S
        self.answers: Counter[str] = Counter()

    async def fill_window(self, key: str) -> None:
        """Leave early again and again, until the window is full of what nobody knows to be used."""
        for number in range(0, 2 * TOKENS_PER_MINUTE // MAX_TOKENS, 2):
            if await self._leave(number, key) == "tokens per min":
                return
        raise AssertionError("who leaves early spends no tokens")

    async def call(self, number: int, key: str) -> None:
        leaves = number % 2 == 0
        while asyncio.get_running_loop().time() < self._until:
            answer = await (self._leave(number, key) if leaves else self._stay(number, key))
            self.answers[answer] += 1
            if answer in ("served", "left"):
                return
            await asyncio.sleep(self._chance.uniform(0.5, 2.0))

    async def _stay(self, number: int, key: str) -> str:
        async with self._post(number, key, stream=number % 4 == 1) as response:
            text = await response.text()
            return "served" if response.status == 200 else _refusal(response.status, text)

    async def _leave(self, number: int, key: str) -> str:
        """Leave before the answer, or after its first frame."""
        streams = number % 4 == 0
        limit_s = 5.0 if streams else self._chance.uniform(0.02, 0.2)
        try:
            async with asyncio.timeout(limit_s):
                async with self._post(number, key, stream=streams) as response:
                    if response.status != 200:
                        return _refusal(response.status, await response.text())
                    await response.content.readline()
                    response.close()
        except TimeoutError:
            pass
        return "left"

    def _post(self, number: int, key: str, *, stream: bool) -> AbstractAsyncContextManager[ClientResponse]:
        messages = [{"role": "user", "content": "hello"}]
        return self._session.post(
            f"{self._fleet.urls[number % GATEWAYS]}/v1/chat/completions",
            json={"model": MODEL, "max_tokens": MAX_TOKENS, "messages": messages, "stream": stream},
            headers={"authorization": f"Bearer {key}"},
        )


def _refusal(status: int, text: str) -> str:
    assert status == 429, text
    for words in ("tokens per min", "other requests that are not charged yet", "is available"):
        if words in text:
            return words
    raise AssertionError(text)


async def test_a_thousand_calls_on_one_dollar(fleet: GatewayFleet) -> None:
    foundation, behaviour = fleet.foundation, fleet.server.behaviour
    behaviour.tokens, behaviour.token_delay_s = MAX_TOKENS, 0.03
    free_key = await fleet.new_tenant("acme")
    limits = {"name": "bounded", "limits": {"tokens_per_minute": TOKENS_PER_MINUTE}}
    bounded = await fleet.admin("POST", "/admin/organizations/acme/api_keys", limits)
    organization = OrganizationId((await fleet.admin("GET", "/admin/organizations/acme"))["id"])

    async with ClientSession(connector=TCPConnector(limit=0, force_close=True), timeout=ClientTimeout(60)) as session:
        crowd = Crowd(fleet, session)
        await crowd.fill_window(bounded["value"])
        async with asyncio.TaskGroup() as group:
            over = asyncio.Event()  # a cancellation may be lost in redis-py
            group.create_task(_never_overdrawn(fleet, organization, over))
            calls = [
                group.create_task(crowd.call(number, bounded["value"] if number % 3 == 0 else free_key))
                for number in range(CALLS)
            ]
            await asyncio.wait(calls)
            over.set()
    assert crowd.answers["served"] > 50, crowd.answers
    assert crowd.answers["left"] > 50, crowd.answers
    assert crowd.answers["other requests that are not charged yet"], "the dollar was in use, not spent"
    assert not crowd.answers["is available"], "nothing was charged yet, so nobody was told that it is spent"

    await _let_the_ledger_catch_up(fleet, organization)
    found = await charges(foundation.database)
    spent = sum(charge.amount for charge in found.values())
    assert 0.5 * DOLLAR < spent <= DOLLAR
    assert await balance(foundation.database, organization) == DOLLAR - spent
    live = await live_budget(foundation.redis, organization)
    assert (live["ledger"], live["pending"], live["held"]) == (DOLLAR - spent, 0, 0)
    assert await foundation.redis.zcard(holds(bucket_of(organization))) == 0
    _check_windows(fleet, bounded["id"])
    await _check_counted(fleet, organization, bounded["id"])
    await _check_no_false_refusal(fleet, organization, free_key)
    assert (await reconciler(foundation.database, foundation.redis).reconcile()).ok


async def _never_overdrawn(fleet: GatewayFleet, organization: OrganizationId, over: asyncio.Event) -> None:
    while not over.is_set():
        live = await live_budget(fleet.foundation.redis, organization)
        assert live.get("ledger", DOLLAR) - live.get("pending", 0) - live.get("held", 0) >= 0, live
        await asyncio.sleep(0.1)


async def _let_the_ledger_catch_up(fleet: GatewayFleet, organization: OrganizationId) -> None:
    foundation = fleet.foundation
    card = rate_card("dear", 0, output=OUTPUT_DOLLARS)
    stand = worker(foundation.database, foundation.redis, prices=PriceList([card]), report_wait_ms=0)
    async with asyncio.timeout(60):
        while await stream_length(foundation.redis, organization) or not await _all_decided(fleet, organization):
            await Sweeper(foundation.redis, renewal_ms=0).sweep()
            await stand.consumer.step()
    await stand.leases.release()


async def _all_decided(fleet: GatewayFleet, organization: OrganizationId) -> bool:
    live = await live_budget(fleet.foundation.redis, organization)
    return (live["pending"], live["held"]) == (0, 0)


def _check_windows(fleet: GatewayFleet, key: str) -> None:
    """What was really used was at no time over the limit in any minute."""
    used = sorted(
        (sent.claims.admitted_at_ms, sent.usage.total_tokens) for sent in fleet.server.log if sent.claims.key == key
    )
    for begin_ms, _ in used:
        minute = sum(tokens for at_ms, tokens in used if begin_ms <= at_ms < begin_ms + 60_000)
        assert minute <= TOKENS_PER_MINUTE


async def _check_counted(fleet: GatewayFleet, organization: OrganizationId, key: str) -> None:
    """The window counts what was really used, also by those who left; what it counts no more may be gone."""
    used: Counter[int] = Counter()
    for sent in fleet.server.log:
        if sent.claims.key == key:
            used[sent.claims.admitted_at_ms // PART_MS] += sent.usage.total_tokens
    counted = (await read_scope(fleet.foundation.redis, bucket_of(organization), key)).of("tpm")
    assert counted.keys() <= used.keys()
    assert {part: used[part] for part in counted} == counted


async def _check_no_false_refusal(fleet: GatewayFleet, organization: OrganizationId, key: str) -> None:
    """What is left is spent to the last request that fits, through whichever process; one more is told that it is."""
    for gateway in range(GATEWAYS):
        credit = {"amount": 4_000_000, "reason": "more"}
        await fleet.admin("POST", f"/admin/organizations/{organization}/credits", credit)
        response = await fleet.chat(gateway, key, max_tokens=MAX_TOKENS)
        assert response.status == 200, await response.text()
    await _let_the_ledger_catch_up(fleet, organization)
    response = await fleet.chat(0, key, max_tokens=1_000)
    assert response.status == 429
    assert response.headers["x-should-retry"] == "false"
    assert "is available" in await response.text()
