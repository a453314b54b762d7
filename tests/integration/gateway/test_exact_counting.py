"""Where the quick bound of a prompt would be refused, it is counted with the model's tokenizer."""

from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.fakes.tokenizers import save_byte_tokenizer, save_word_tokenizer
from support.gateway_stack import GatewayStack
from tokenyard.core.budgets import wallet
from tokenyard.metering.events import Outcome

WORDS = "alphabetical " * 400  # 5,200 bytes, 400 tokens
ASK = {"model": BASE.id, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 10}


@pytest.fixture(autouse=True)
def _tokenizer(gateway: GatewayStack, tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path)
    gateway.models.base = msgspec.structs.replace(BASE, path=str(tmp_path))


async def test_context(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        assert (await gateway.post(session, ASK)).status == 200
        assert (await gateway.post(session, {**ASK, "max_tokens": 2048 - 414})).status == 200
        refused = await gateway.post(session, {**ASK, "max_tokens": 2048 - 413})
        assert refused.status == 400
        assert "(414 in the messages, 1635 in the completion)" in (await refused.json())["error"]["message"]


async def test_the_default_takes_what_room_there_is(gateway: GatewayStack) -> None:
    content = "alphabetical " * 2000
    async with ClientSession() as session:
        response = await gateway.post(session, {"model": BASE.id, "messages": [{"role": "user", "content": content}]})
        assert response.status == 200
    assert gateway.server.log[0].body["max_tokens"] == 2048 - 2014


async def test_completions(gateway: GatewayStack) -> None:
    body = {"model": BASE.id, "prompt": [WORDS, "alphabetical"], "max_tokens": 2048 - 402}
    async with ClientSession() as session:
        assert (await gateway.post(session, body, "/v1/completions")).status == 200
        more = await gateway.post(session, {**body, "max_tokens": 2048 - 401}, "/v1/completions")
        assert more.status == 400


@pytest.mark.parametrize(("limit", "status"), [(500, 200), (400, 429)])
async def test_tokens_per_minute(gateway: GatewayStack, limit: int, status: int) -> None:
    gateway.models.base = msgspec.structs.replace(gateway.models.base, context_length=100_000)
    gateway.limit(tokens_per_minute=limit)
    async with ClientSession() as session:
        response = await gateway.post(session, ASK)
        assert response.status == status


@pytest.mark.parametrize(("tokens", "status"), [(500, 200), (400, 429)])
async def test_budgets(gateway: GatewayStack, tokens: int, status: int) -> None:
    gateway.models.base = msgspec.structs.replace(gateway.models.base, context_length=100_000)
    gateway.budgets.set(wallet(ORGANIZATION), tokens * 100 + 10 * 1000)
    async with ClientSession() as session:
        response = await gateway.post(session, ASK)
        assert response.status == status
        if status == 429:
            assert (await response.json())["error"]["type"] == "insufficient_quota"


async def test_what_cannot_fit_is_not_counted(gateway: GatewayStack, tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    gateway.models.base = msgspec.structs.replace(gateway.models.base, path=str(tmp_path))
    content = " alphabetical" * 2100  # no token is longer than this word
    async with ClientSession() as session:
        refused = await gateway.post(session, {"model": BASE.id, "messages": [{"role": "user", "content": content}]})
        assert refused.status == 400
        error = (await refused.json())["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "resulted in at least 2114 tokens" in error["message"]
    assert await gateway.events() == []


async def test_who_is_over_a_limit_anyway_is_not_counted_for(gateway: GatewayStack, tmp_path: Path) -> None:
    """The refusals speak of the quick bound, because nothing else is known."""
    save_byte_tokenizer(tmp_path)
    gateway.models.base = msgspec.structs.replace(gateway.models.base, path=str(tmp_path))
    messages = [{"role": "user", "content": " alphabetical" * 400}]  # 400 tokens, 5,200 bytes
    ask = {"model": BASE.id, "messages": messages, "max_tokens": 10}
    async with ClientSession() as session:
        gateway.limit(tokens_per_minute=400)
        refused = await gateway.post(session, ask)
        assert "Requested 2058" in (await refused.json())["error"]["message"]
        gateway.limit(tokens_per_minute=500)
        assert (await gateway.post(session, ask)).status == 200
        refused = await gateway.post(session, ask)
        assert refused.status == 429
        assert "Requested 2058" in (await refused.json())["error"]["message"]

        gateway.limit(requests_per_minute=2)  # one was let in before
        assert (await gateway.post(session, ask)).status == 200
        assert (await gateway.post(session, ask)).status == 429


async def test_whose_budget_is_empty_anyway_is_not_counted_for(gateway: GatewayStack, tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    gateway.models.base = msgspec.structs.replace(gateway.models.base, path=str(tmp_path))
    gateway.budgets.set(wallet(ORGANIZATION), 50_000)  # 414 tokens and the answer's ten cost 51,400
    async with ClientSession() as session:
        refused = await gateway.post(session, ASK)
        assert "may cost up to $0.0002148" in (await refused.json())["error"]["message"]


async def test_what_does_not_fit_after_all_gives_everything_back(gateway: GatewayStack) -> None:
    gateway.limit(tokens_per_minute=8000)  # the bound of one is 3,683
    async with ClientSession() as session:
        for _ in range(3):
            refused = await gateway.post(session, {**ASK, "max_tokens": 2048 - 413})
            assert refused.status == 400
            await gateway.nothing_is_held()
        assert (await gateway.post(session, {**ASK, "max_tokens": 2048 - 414})).status == 200
    settled = await gateway.settled(4)
    assert [one.outcome for one in settled] == [*[Outcome.FAILED] * 3, Outcome.COMPLETED]
    assert len(gateway.server.log) == 1
