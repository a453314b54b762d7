"""Where the quick bound of a prompt would be refused, it is counted with the model's tokenizer."""

from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from tokenizers import Tokenizer, models, pre_tokenizers

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.gateway_stack import GatewayStack
from tokenyard.core.budgets import wallet

WORDS = "alphabetical " * 400  # 5,200 bytes, 400 tokens
ASK = {"model": BASE.id, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 10}


@pytest.fixture(autouse=True)
def _tokenizer(gateway: GatewayStack, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"alphabetical": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
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
