"""A real embedding engine through a gateway: right vectors, two witnesses that agree, shares, and clean refusals."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from aiohttp import ClientSession
from redis.asyncio import Redis
from transformers import AutoModel, AutoTokenizer

from support.fuzz.attack import Attack
from support.fuzz.bodies import POOLED
from support.fuzz.cases import fuzz_case
from support.gateway_stack import KEY, OTHER_KEY, GatewayStack, gateway_stack
from support.replica_caller import ReplicaCaller, claims
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.replica import Replica
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard_deployments.base_models.fetch import shipped_specs

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

MODEL = "all-minilm-l6-v2"
EMBEDDINGS, SCORE, RERANK = "/v1/embeddings", "/v1/score", "/v1/rerank"
TEXTS = [
    "The sea is blue.",
    "L'oc\u00e9an est d'un bleu profond, na\u00efve \u6d77\u306f\u9752\u3044 \U0001f30a.",
    "Interest rates rose by a quarter of a point, " * 12,
    "x",
]
CASES = int(os.environ.get("FUZZ_CASES", "120")) // 2
CLIENTS = 4
LONG = ["sea " * 100] * 700  # more than one organization alone may have waiting here
LONG_TOKENS = 102
Vectors = Any


@pytest.fixture
async def gateway(
    redis: Redis, tmp_path: Path, embedder: ReplicaCaller, embedding_model: Path
) -> AsyncIterator[GatewayStack]:
    cluster = embedder.cluster
    spec = read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())
    base = BaseModels([spec], embedding_model.parent).get(MODEL)
    assert base is not None
    async with gateway_stack(
        redis,
        tmp_path,
        replicas=0,
        meter_secret=cluster.meter_secret,
        bearer=cluster.bearer,
        max_request_bytes=1 << 20,
    ) as stack:
        stack.models.embedder = msgspec.structs.replace(base, path=str(embedding_model))
        stack.replicas.listed = [Replica(embedder.target.name, MODEL, embedder.target.url)]
        yield stack


@pytest.fixture(scope="module")
def reference(embedding_model: Path) -> Vectors:
    """What the weights make of the texts without an engine: the mean over the tokens, at length one."""
    tokenizer, model = AutoTokenizer.from_pretrained(embedding_model), AutoModel.from_pretrained(embedding_model)
    vectors = []
    for text in TEXTS:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy())
    return np.stack(vectors)


async def _post(gateway: GatewayStack, path: str, status: int = 200, key: str = KEY, **body: Any) -> dict[str, Any]:
    async with ClientSession() as session:
        response = await gateway.post(session, {"model": MODEL, **body}, path, key=key)
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


def _vectors(answer: dict[str, Any]) -> Vectors:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return np.array([one["embedding"] for one in answer["data"]], dtype=np.float32)


async def _witnesses_agree(gateway: GatewayStack, embedder: ReplicaCaller, tokens: int) -> None:
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(tokens, 0))
    report = await embedder.report(settled.claims.attempt)
    assert (report.usage, report.finished) == (settled.usage, True)


async def _computed(embedder: ReplicaCaller) -> float:
    """Return how many tokens of prompts the engine says it has computed."""
    _, text = await embedder.get("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("vllm:prompt_tokens_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@asynccontextmanager
async def _flooded(gateway: GatewayStack, embedder: ReplicaCaller) -> AsyncIterator[None]:
    """One organization has a great batch in the engine meanwhile, and gets all of its vectors at the end."""
    before = await _computed(embedder)
    flood = asyncio.create_task(_post(gateway, EMBEDDINGS, input=LONG))
    while not flood.done() and await _computed(embedder) == before:  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0.05)
    yield
    assert not flood.done(), "it came first, and did not end first"
    assert len((await flood)["data"]) == len(LONG)


async def test_vectors_are_those_of_the_weights(
    gateway: GatewayStack, embedder: ReplicaCaller, reference: Vectors, embedding_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedding_model)
    answer = await _post(gateway, EMBEDDINGS, input=TEXTS)
    assert set(answer) == {"object", "model", "data", "usage"}
    assert set(answer["data"][0]) == {"object", "index", "embedding"}
    np.testing.assert_allclose(_vectors(answer), reference, atol=2e-5)
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    await _witnesses_agree(gateway, embedder, tokens)


async def test_every_form_of_a_request_gives_the_same(
    gateway: GatewayStack, reference: Vectors, embedding_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedding_model)
    batch = _vectors(await _post(gateway, EMBEDDINGS, input=TEXTS))
    singles = [_vectors(await _post(gateway, EMBEDDINGS, input=text))[0] for text in TEXTS]
    np.testing.assert_allclose(singles, batch, atol=2e-6)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    np.testing.assert_allclose(_vectors(await _post(gateway, EMBEDDINGS, input=ids)), batch, atol=2e-6)
    packed = await _post(gateway, EMBEDDINGS, input=TEXTS[0], encoding_format="base64")
    plain = _vectors(await _post(gateway, EMBEDDINGS, input=TEXTS[0], encoding_format="float"))
    decoded = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(decoded, plain[0])


async def test_scores_are_the_cosines(gateway: GatewayStack, embedder: ReplicaCaller, reference: Vectors) -> None:
    answer = await _post(gateway, SCORE, queries=TEXTS[0], documents=TEXTS)
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"}
    cosines = reference @ reference[0]
    np.testing.assert_allclose([one["score"] for one in answer["data"]], cosines, atol=5e-5)
    await _witnesses_agree(gateway, embedder, answer["usage"]["prompt_tokens"])
    pairs = await _post(gateway, SCORE, queries=TEXTS[::-1], documents=TEXTS)
    np.testing.assert_allclose(
        [one["score"] for one in pairs["data"]], (reference * reference[::-1]).sum(axis=1), atol=5e-5
    )


async def test_a_ranking_follows_them(gateway: GatewayStack, embedder: ReplicaCaller, reference: Vectors) -> None:
    answer = await _post(gateway, RERANK, query=TEXTS[0], documents=TEXTS)
    wanted = sorted(range(len(TEXTS)), key=lambda one: -float(reference[one] @ reference[0]))
    assert [one["index"] for one in answer["results"]] == wanted
    assert answer["results"][0]["document"] == {"text": TEXTS[0]}
    await _witnesses_agree(gateway, embedder, answer["usage"]["prompt_tokens"])


async def test_a_text_over_the_context_is_refused_and_costs_nothing(
    gateway: GatewayStack, embedder: ReplicaCaller
) -> None:
    error = (await _post(gateway, EMBEDDINGS, 400, input=["short", "word " * 300]))["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    (settled,) = await gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.FAILED, TokenUsage(0, 0))
    assert (await embedder.report(settled.claims.attempt)).usage == TokenUsage(0, 0)
    assert (await _post(gateway, EMBEDDINGS, input=["word " * 254]))["usage"]["prompt_tokens"] == 256


async def test_an_embedding_replica_answers_no_chats(embedder: ReplicaCaller) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}
    async with embedder.send(body, _claims("/v1/chat/completions")) as response:
        assert response.status in (400, 404)


async def test_who_has_as_much_inside_as_it_may_is_told_when_to_come_back_and_others_are_answered(
    gateway: GatewayStack, embedder: ReplicaCaller
) -> None:
    async with _flooded(gateway, embedder), ClientSession() as session:
        response = await gateway.post(session, {"model": MODEL, "input": LONG}, EMBEDDINGS)
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (429, "slow_down")
        assert int(response.headers["retry-after"]) >= 1
        for _ in range(3):
            assert len((await _post(gateway, EMBEDDINGS, key=OTHER_KEY, input="one short text"))["data"]) == 1


async def test_whatever_is_sent_is_answered_or_refused(gateway: GatewayStack, embedder: ReplicaCaller) -> None:
    before = await _computed(embedder)
    cases = (fuzz_case(seed, MODEL, dict.fromkeys(POOLED, 1)) for seed in range(CASES))
    async with ClientSession() as session:
        attack = Attack(session, gateway.url, KEY, cases)
        await attack.run(CLIENTS)
    assert len(attack.answers) == CASES
    assert [str(answer) for answer in attack.answers if answer.problem] == []
    served = [answer for answer in attack.answers if answer.status == 200]
    assert min(len(served), len(attack.answers) - len(served)) > CASES / 10
    assert await _computed(embedder) > before
    await embedder.idle()


async def test_who_leaves_is_charged_for_the_texts_that_were_computed(embedder: ReplicaCaller) -> None:
    asked, before = _claims(EMBEDDINGS), await _computed(embedder)

    async def send() -> None:
        async with embedder.send({"model": MODEL, "input": LONG}, asked) as response:
            await response.read()

    sending = asyncio.create_task(send())
    while not sending.done() and await _computed(embedder) == before:  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0.05)
    assert sending.cancel()
    report = await embedder.report(asked.attempt)
    assert not report.finished
    assert report.usage.completion_tokens == 0
    assert 0 < report.usage.prompt_tokens < LONG_TOKENS * len(LONG)
    assert report.usage.prompt_tokens % LONG_TOKENS == 0, "whole texts"
    await embedder.idle()


def _claims(endpoint: str) -> MeterClaims:
    return msgspec.structs.replace(claims(endpoint=endpoint), model=MODEL, base_model=MODEL)
