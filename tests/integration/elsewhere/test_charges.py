"""From a server elsewhere to the books: one exact charge each, at once, nothing waited for, no alarm, no waste."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from support.billing.stand import PRICES, RATE, charges, reconciler, rows, worker
from support.elsewhere_stack import SOLD, ElsewhereStack, elsewhere_stack
from support.fakes.rate_cards import SHIPPED_MODEL
from support.fakes.server_elsewhere import Elsewhere
from support.gateway_stack import HELLO
from tokenyard.core.money import Price, inference_cost
from tokenyard.core.replica import Replica
from tokenyard.core.usage import TokenUsage
from tokenyard.storage.database import Database
from tokenyard_billing.tables import Alarm, Charge, OpenRequest, Waste

WHOLE: dict[str, object] = {"model": SHIPPED_MODEL, "messages": HELLO}
STREAM: dict[str, object] = {**WHOLE, "stream": True}
GONE = Replica("replica-gone", SHIPPED_MODEL, "http://127.0.0.1:9")
TOLD = TokenUsage(7, 8, 2)


@dataclass
class Books:
    """A gateway that sells the shipped model from elsewhere, and a worker's ledger."""

    stack: ElsewhereStack
    database: Database
    redis: Redis

    async def ask(self, body: dict[str, object]) -> None:
        async with ClientSession() as session:
            response = await self.stack.gateway.post(session, body)
            await response.read()

    async def charged(self, number: int = 1) -> list[Charge]:
        """Take in what so many requests left, once; everything must be decided then, without alarm or waste."""
        await self.stack.gateway.settled(number)
        await worker(self.database, self.redis).consumer.step()
        for table in (Alarm, Waste, OpenRequest):
            assert await rows(self.database, table) == []
        found = list((await charges(self.database)).values())
        assert len(found) == number
        for charge in found:
            usage = TokenUsage(charge.prompt_tokens, charge.completion_tokens, charge.cached_tokens)
            assert charge.amount == inference_cost(RATE, usage)
        tokens = (await reconciler(self.database, self.redis).reconcile()).tokens
        billed = sum(charge.prompt_tokens + charge.completion_tokens for charge in found)
        expected = {"replica_silent": 0, "served_elsewhere": -billed, "counts_differ": 0, "undecided": 0}
        assert (tokens.reported, tokens.unexplained, tokens.named) == (0, 0, expected)
        return found


@pytest.fixture
async def books(database: Database, redis: Redis, tmp_path: Path) -> AsyncIterator[Books]:
    async with elsewhere_stack(redis, tmp_path) as stack:
        stack.gateway.models.price = _price
        stack.set_base(id=SHIPPED_MODEL)
        yield Books(stack, database, redis)


def _price(name: str) -> Price:
    return PRICES.by_id(f"2026-01-01/{name}")


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_what_the_server_tells(books: Books, body: dict[str, object]) -> None:
    await books.ask(body)
    (charge,) = await books.charged()
    assert (charge.rule, charge.model) == ("completed", SHIPPED_MODEL)
    assert TokenUsage(charge.prompt_tokens, charge.completion_tokens, charge.cached_tokens) == TOLD


async def test_a_client_that_left_is_charged_at_once(books: Books) -> None:
    books.stack.server.behaviour = Elsewhere(words=500, delay_s=0.02)
    async with ClientSession() as session:
        response = await books.stack.gateway.post(session, {**STREAM, "max_tokens": 500})
        while b"word3 " not in await response.content.readline():
            pass
        response.close()
        (settled,) = await books.stack.gateway.settled()
    (charge,) = await books.charged()
    assert charge.rule == "left_elsewhere"
    assert charge.completion_tokens == settled.usage.completion_tokens >= 3


async def test_every_fault_together(books: Books) -> None:
    """Two that were cut or lacked usage cost what was relayed; two that failed cost nothing."""
    server = books.stack.server
    for behaviour, body in (
        (Elsewhere(cut_at=3, delay_s=0.01), STREAM),
        (Elsewhere(usage=None), WHOLE),
        (Elsewhere(usage={"prompt_tokens": 10**9, "completion_tokens": 10**9}), STREAM),
        (Elsewhere(status=500), WHOLE),
        (Elsewhere(cut_at=0), STREAM),
    ):
        server.behaviour = behaviour
        await books.ask(body)
    found = await books.charged(5)
    assert sorted(charge.rule for charge in found) == ["completed", "completed", "failed", "failed", "replica_lost"]
    held = max(found, key=lambda charge: charge.completion_tokens)
    assert (held.prompt_tokens, held.completion_tokens) == (29, 64)


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_a_fallback_under_a_dead_replica_is_one_charge_at_the_price_that_was_asked_for(
    books: Books, body: dict[str, object]
) -> None:
    books.stack.fall_back()
    books.stack.set_base(id=SHIPPED_MODEL)
    books.stack.gateway.replicas.listed[:] = [GONE]
    await books.ask(body)
    (charge,) = await books.charged()
    assert (charge.rule, charge.price, charge.attempt) == ("completed", RATE.id, f"{charge.charge_key}.2")
    assert TokenUsage(charge.prompt_tokens, charge.completion_tokens, charge.cached_tokens) == TOLD
    assert SOLD not in charge.model
