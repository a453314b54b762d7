"""Embeddings, scores and rankings: for the real `openai` client, against OpenAI's words, and their cost."""

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse

from support.fakes.gateway_ports import BASE, EMBEDDER
from support.fakes.model_server import Behaviour
from support.gateway_stack import CHAT, HELLO, KEY, GatewayStack
from support.openai_schema import ApiDescription, check_openai_schema, check_openai_type
from tokenyard.core.replica import Replica
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.openapi import schemas
from tokenyard.metering.events import Outcome

EMBEDDINGS, SCORE, RERANK = "/v1/embeddings", "/v1/score", "/v1/rerank"
OURS = ApiDescription({"components": {"schemas": schemas()}})
BODY = {"model": EMBEDDER.id, "input": ["one two", "three"]}


@pytest.fixture(autouse=True)
def embedder(gateway: GatewayStack) -> None:
    """The mock model server is a replica of the embedding model, too."""
    (chat,) = gateway.replicas.listed
    gateway.replicas.listed.append(Replica("embedder", EMBEDDER.id, chat.url))


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def _post(gateway: GatewayStack, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    async with ClientSession() as session:
        response = await gateway.post(session, body, path)
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


async def test_texts_are_embedded_and_charged_by_their_tokens(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=EMBEDDER.id, input=["one two", "three"])
    # The client itself asks for base64, and reads it.
    assert gateway.server.log[0].body["encoding_format"] == "base64"
    assert [one.embedding for one in answer.data] == [[0.5, 0.5, -0.25], [0.375, 0.5, -0.25]]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7)
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(7, 0))
    assert settled.claims.endpoint == EMBEDDINGS
    await gateway.nothing_is_held()
    assert (await gateway.budget()).pending == 7 * 100


@pytest.mark.parametrize("given", ["one two", [1, 2, 3, 4], [[1, 2, 3, 4]], ["one two"]])
async def test_every_form_of_input(gateway: GatewayStack, client: AsyncOpenAI, given: Any) -> None:
    answer = await client.embeddings.create(model=EMBEDDER.id, input=given, encoding_format="float")
    assert [one.embedding for one in answer.data] == [[0.5, 0.5, -0.25]]
    assert gateway.server.log[0].body["input"] == given
    assert answer.usage.prompt_tokens == 4


async def test_shorter_vectors_where_the_model_has_them(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=EMBEDDER.id, input="one two", dimensions=2)
    assert answer.data[0].embedding == [0.5, 0.5]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.embeddings.create(model=EMBEDDER.id, input="one two", dimensions=1)
    assert refused.value.param == "dimensions"
    assert len(gateway.server.log) == 1


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_answers_are_openais(gateway: GatewayStack, form: str) -> None:
    answer = await _post(gateway, EMBEDDINGS, {**BODY, "encoding_format": form, "user": "u"})
    OURS.check(answer, "EmbeddingList")
    if form == "base64":
        for one in answer["data"]:
            one["embedding"] = list(struct.unpack("<3f", base64.b64decode(one["embedding"])))
    check_openai_schema(answer, "CreateEmbeddingResponse")
    check_openai_type(answer, CreateEmbeddingResponse)


async def test_requests_of_openais_shape_are_taken(gateway: GatewayStack) -> None:
    body = {**BODY, "encoding_format": "float", "user": "u", "dimensions": 2}
    check_openai_schema(body, "CreateEmbeddingRequest")
    await _post(gateway, EMBEDDINGS, body)


async def test_a_batch_of_any_size_passes_and_is_charged_exactly(gateway: GatewayStack) -> None:
    texts = ["word"] * 2048
    answer = await _post(gateway, EMBEDDINGS, {"model": EMBEDDER.id, "input": texts})
    assert len(answer["data"]) == 2048
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(3 * 2048, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBEDDINGS, {"model": BASE.id, "input": "a"}),
        (SCORE, {"model": BASE.id, "queries": "a", "documents": "b"}),
        (RERANK, {"model": BASE.id, "query": "a", "documents": ["b"]}),
        (CHAT, {"model": EMBEDDER.id, "messages": HELLO}),
        ("/v1/completions", {"model": EMBEDDER.id, "prompt": "a"}),
    ],
)
async def test_a_model_for_other_endpoints_is_refused_before_anything_is_held(
    gateway: GatewayStack, path: str, body: dict[str, Any]
) -> None:
    gateway.limit(requests_per_minute=1)
    for _ in range(2):
        error = (await _post(gateway, path, body, 400))["error"]
        assert (error["param"], error["code"]) == ("model", "model_not_supported")
    assert gateway.server.log == []
    assert await gateway.events() == []


async def test_what_the_engine_refuses_costs_nothing(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    told = b'{"error":{"message":"This model\'s maximum context length is 64 tokens.","param":"input_tokens"}}'
    gateway.server.behaviour = Behaviour(status=400, body=told)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.embeddings.create(model=EMBEDDER.id, input="word " * 500)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.FAILED, TokenUsage(0, 0))
    await gateway.nothing_is_held()
    assert (await gateway.budget()).pending == 0


async def test_a_replica_that_is_full_is_told_as_such(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour = Behaviour(status=429, body=b"{}", headers={"retry-after": "7"})
    with pytest.raises(openai.RateLimitError) as refused:
        await client.embeddings.create(model=EMBEDDER.id, input="a")
    assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("slow_down", "7")


async def test_scores(gateway: GatewayStack) -> None:
    body = {"model": EMBEDDER.id, "queries": "a b", "documents": ["one two", "three"]}
    answer = await _post(gateway, SCORE, body)
    OURS.check(answer, "ScoreList")
    assert [one["score"] for one in answer["data"]] == [0.04, 0.03]
    assert gateway.server.log[0].path == "/score"
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(answer["usage"]["prompt_tokens"], 0) == TokenUsage(4 + 4 + 3, 0)
    assert settled.claims.endpoint == SCORE


@pytest.mark.parametrize("documents", [True, False])
async def test_a_ranking_has_the_nearest_first(gateway: GatewayStack, documents: bool) -> None:
    body: dict[str, Any] = {"model": EMBEDDER.id, "query": "a", "documents": ["one", {"text": "one two three"}, "a b"]}
    answer = await _post(gateway, RERANK, {**body, "top_n": 2, "return_documents": documents})
    OURS.check(answer, "Ranking")
    assert [one["index"] for one in answer["results"]] == [1, 2]
    texts = [one.get("document", {}).get("text") for one in answer["results"]]
    assert texts == (["one two three", "a b"] if documents else [None, None])
    (settled,) = await gateway.settled()
    assert settled.usage == TokenUsage(3 + 3 + 5 + 4, 0)
    assert settled.claims.endpoint == RERANK
