"""A running gateway and several replicas: what they are sent follows what they hold and what they say of their load."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Sent
from support.gateway_stack import CHAT, OTHER_KEY, GatewayStack, gateway_stack
from tokenyard.core.replica import LOAD_HEADER

REPLICAS = 4
PAPER = "The river rises in the hills and runs to the sea. " * 20


@pytest.fixture
async def several(redis: Redis, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(redis, tmp_path, replicas=REPLICAS) as stack:
        for server in stack.servers:
            server.behaviour.headers = {LOAD_HEADER: "0 32 0"}
        yield stack


def _ask(question: str, *, system: str = PAPER, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"model": BASE.id, "messages": messages, "max_tokens": 4, "stream": stream}


def _logs(stack: GatewayStack) -> list[list[Sent]]:
    return [server.log for server in stack.servers]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_prompts_that_begin_alike_go_to_the_same_replica(several: GatewayStack, stream: bool) -> None:
    async with ClientSession() as session:
        for number in range(12):
            assert await several.status(session, _ask(f"Why? {number}", stream=stream)) == 200
    assert sorted(map(len, _logs(several))) == [0, 0, 0, 12]


async def test_responses_and_messages_find_what_a_chat_began(several: GatewayStack) -> None:
    """They are chats to a replica."""
    asked: list[tuple[str, dict[str, object]]] = [
        (CHAT, _ask("Why?")),
        ("/v1/responses", {"model": BASE.id, "instructions": PAPER, "input": "Where?", "max_output_tokens": 16}),
        (
            "/v1/messages",
            {
                "model": BASE.id,
                "system": PAPER,
                "messages": [{"role": "user", "content": "When?"}],
                "max_tokens": 4,
            },
        ),
    ]
    async with ClientSession() as session:
        for path, body in asked:
            assert await several.status(session, body, path, anthropic_version="2023-06-01") == 200
    assert sorted(map(len, _logs(several))) == [0, 0, 0, 3]


async def test_a_replica_that_says_it_is_full_is_sent_nothing_more(several: GatewayStack) -> None:
    async with ClientSession() as session:
        await several.status(session, _ask("Why?"))
        (holder,) = (server for server in several.servers if server.log)
        holder.behaviour.headers = {LOAD_HEADER: "40 32 9000"}
        await several.status(session, _ask("Where?"))
        assert len(holder.log) == 2
        for number in range(8):
            await several.status(session, _ask(f"When? {number}"))
    assert len(holder.log) == 2
    assert sorted(map(len, _logs(several))) == [0, 0, 2, 8], "the next one holds it, too, and is taken from then on"


async def test_requests_under_way_are_spread_before_any_answer_begins(several: GatewayStack) -> None:
    for server in several.servers:
        server.behaviour.token_delay_s = 0.1
    async with ClientSession() as session:
        wide = [several.status(session, {**_ask("Why?"), "n": 8}) for _ in range(2 * REPLICAS)]
        assert set(await asyncio.gather(*wide)) == {200}
    assert max(map(len, _logs(several))) <= 4


async def test_what_one_organization_sent_draws_nothing_of_another(several: GatewayStack) -> None:
    """Each begins where its own salted prompt belongs, whatever the other has sent."""
    papers = [f"{number} {PAPER}" for number in range(12)]
    async with ClientSession() as session:
        for paper in papers:
            await several.status(session, _ask("Why?", system=paper))
        mine = [len(log) for log in _logs(several)]
        for paper in papers:
            await several.status(session, _ask("Why?", system=paper), key=OTHER_KEY)
    salts = {sent.body["cache_salt"] for log in _logs(several) for sent in log}
    assert len(salts) == 2
    homes: list[dict[str, int]] = [{}, {}]
    for at, log in enumerate(_logs(several)):
        for number, sent in enumerate(log):
            homes[number >= mine[at]][sent.body["messages"][0]["content"]] = at
    assert len(homes[0]) == len(homes[1]) == len(papers)
    assert homes[0] != homes[1]


async def test_a_client_is_told_nothing_of_it(several: GatewayStack) -> None:
    async with ClientSession() as session:
        answer = await several.post(session, _ask("Why?"))
        await answer.read()
    assert LOAD_HEADER not in answer.headers


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_requests_of_one_cache_key_go_to_the_same_replica(several: GatewayStack, path: str) -> None:
    """Their prompts have nothing in common that is long enough to be found; another organization's are not theirs."""
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    if path != CHAT:
        asked = {"input": "Hi", "max_output_tokens": 16}
    async with ClientSession() as session:
        for key in ("ty-test", OTHER_KEY):
            for _ in range(12):
                body = {"model": BASE.id, **asked, "prompt_cache_key": f"agent {key}"}
                assert await several.status(session, body, path, key=key) == 200
    organizations = [{str(sent.claims.organization) for sent in log} for log in _logs(several) if log]
    assert sum(map(len, organizations)) == 2, "each of the two is served by one replica"


async def test_a_cache_key_does_not_keep_requests_from_where_their_prompt_is(several: GatewayStack) -> None:
    async with ClientSession() as session:
        await several.status(session, _ask("Why?"))
        (holder,) = [server for server in several.servers if server.log]
        for key in map(str, range(12)):
            await several.status(session, {**_ask("Hi", system="Short."), "prompt_cache_key": key})
            await several.status(session, {**_ask("Where?"), "prompt_cache_key": key})
    long = [sum(sent.body["messages"][0]["content"] == PAPER for sent in log) for log in _logs(several)]
    assert sorted(long) == [0, 0, 0, 13]
    assert len(holder.log) < 25, "the short ones are elsewhere as well"
