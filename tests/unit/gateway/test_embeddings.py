"""What goes to an embedding model: how it is bounded, what of it is refused, and what is sent."""

from typing import Any

import msgspec
import orjson
import pytest

from support.fakes.admission_requests import principal
from support.fakes.clock import FrozenClock
from support.fakes.gateway_ports import BASE, EMBEDDER, KnownModels
from tokenyard.core.errors import ContextLengthExceeded, InvalidRequest
from tokenyard.core.ids import RequestId
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.embeddings import MAX_INPUT_TOKENS, MAX_INPUTS
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, SCORE, Endpoint
from tokenyard.gateway.path.admit import admission_request
from tokenyard.gateway.path.resolve import ResolvedRequest, fitted, resolve

PAIRS = {"queries": ["a b", "c"], "documents": ["d", "e f g"]}


async def _resolved(endpoint: Endpoint, **body: Any) -> ResolvedRequest:
    parsed = endpoint.parse(orjson.dumps({"model": EMBEDDER.id, **body}))
    return await resolve(endpoint, parsed, principal(), KnownModels(), TokenCounter())


@pytest.mark.parametrize(
    ("endpoint", "body", "prompts"),
    [
        (EMBEDDINGS, {"input": "four"}, (6,)),
        (EMBEDDINGS, {"input": ["four", "three"]}, (6, 7)),
        (EMBEDDINGS, {"input": [1, 2, 3]}, (3,)),
        (EMBEDDINGS, {"input": [[1, 2, 3], [4]]}, (3, 1)),
        (SCORE, PAIRS, (5, 3, 3, 7)),
        (SCORE, {"queries": "four", "documents": ["a", "b"]}, (6, 3, 3)),
        (RERANK, {"query": "four", "documents": ["a", {"text": "bc"}]}, (6, 3, 4)),
    ],
)
async def test_the_hold_is_of_the_prompts_alone(
    endpoint: Endpoint, body: dict[str, Any], prompts: tuple[int, ...]
) -> None:
    resolved = await _resolved(endpoint, **body)
    assert resolved.prompts == prompts
    asked = admission_request(resolved, principal(), RequestId("req_1"), FrozenClock())
    assert (asked.tokens, asked.amount) == (sum(prompts), 100 * sum(prompts))


@pytest.mark.parametrize(("endpoint", "model"), [(EMBEDDINGS, BASE.id), (SCORE, BASE.id), (RERANK, BASE.id)])
async def test_a_chat_model_embeds_nothing(endpoint: Endpoint, model: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        EMBEDDINGS.path: {"input": "a"},
        SCORE.path: PAIRS,
        RERANK.path: {"query": "a", "documents": ["b"]},
    }
    with pytest.raises(InvalidRequest, match=r"is not for /v1/.*: it answers in text") as refused:
        await _resolved(endpoint, **bodies[endpoint.path], model=model)
    assert (refused.value.param, refused.value.code) == ("model", "model_not_supported")


@pytest.mark.parametrize(
    ("endpoint", "body"), [(CHAT, {"messages": [{"role": "user", "content": "a"}]}), (COMPLETIONS, {"prompt": "a"})]
)
async def test_an_embedding_model_does_not_chat(endpoint: Endpoint, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="it makes embeddings, at /v1/embeddings") as refused:
        await _resolved(endpoint, **body)
    assert (refused.value.param, refused.value.code) == ("model", "model_not_supported")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ""}, "input", "empty_string"),
        ({"input": ["a", ""]}, "input", "empty_string"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [[1], []]}, "input", "invalid_type"),
        ({"input": ["a", 1]}, "input", "invalid_type"),
        ({"input": [1.5]}, "input", "invalid_type"),
        ({"input": [-1]}, "input", "invalid_type"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", "array_above_max_length"),
        ({"input": [EMBEDDER.vocabulary_size]}, "input", "invalid_value"),
        ({"input": "a", "dimensions": 1}, "dimensions", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "a", "stream": True}, "stream", "unsupported_parameter"),
        ({"input": "a", "truncate_prompt_tokens": 8}, "truncate_prompt_tokens", "unknown_parameter"),
        ({}, "input", "missing_required_parameter"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await _resolved(EMBEDDINGS, **body)
    assert (refused.value.param, refused.value.code) == (param, code)


async def test_other_dimensions_are_for_models_that_were_trained_for_them() -> None:
    for wanted, sent in ((3, None), (2, 2)):
        body = EMBEDDINGS.parse(orjson.dumps({"model": "m", "input": "a", "dimensions": wanted}))
        body.check_model(EMBEDDER)
        assert body.sent(EMBEDDER, 0).get("dimensions") == sent
    only_its_own = msgspec.structs.replace(EMBEDDER, dimensions=(3,))
    EMBEDDINGS.parse(b'{"model": "m", "input": "a", "dimensions": 3}').check_model(only_its_own)
    with pytest.raises(InvalidRequest, match="3 dimensions") as refused:
        EMBEDDINGS.parse(b'{"model": "m", "input": "a", "dimensions": 2}').check_model(only_its_own)
    assert (refused.value.param, refused.value.code) == ("dimensions", "unsupported_parameter")


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (SCORE, {"queries": ["a", "b"], "documents": ["c"]}, "queries"),
        (SCORE, {"queries": ["a", "b"], "documents": ["c", "d", "e"]}, "queries"),
        (SCORE, {"queries": "", "documents": ["c"]}, "queries"),
        (SCORE, {"text_1": "a", "queries": "a", "documents": ["c"]}, "text_1"),
        (RERANK, {"query": "a", "documents": []}, "documents"),
        (RERANK, {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        (RERANK, {"query": "a", "documents": ["b"], "max_tokens_per_doc": 8}, "max_tokens_per_doc"),
        (RERANK, {"query": "a", "documents": [{"title": "b"}]}, "documents[...].title"),
    ],
)
async def test_so_are_wrong_comparisons(endpoint: Endpoint, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await _resolved(endpoint, **body)
    assert refused.value.param is not None
    assert refused.value.param.startswith(param.partition("[")[0])


async def test_a_text_that_may_be_too_long_is_held_for_a_whole_context_and_left_to_the_engine() -> None:
    context = EMBEDDER.context_length
    resolved = await _resolved(EMBEDDINGS, input=["x" * 10 * context, "y"])
    assert resolved.prompts == (context, 3)
    assert await fitted(resolved, TokenCounter()) is resolved


async def test_tokens_over_the_context_are_refused_at_once() -> None:
    context = EMBEDDER.context_length
    assert (await _resolved(EMBEDDINGS, input=[1] * context)).prompts == (context,)
    with pytest.raises(ContextLengthExceeded, match="65 tokens") as refused:
        await _resolved(EMBEDDINGS, input=[[1], [1] * (context + 1)])
    assert refused.value.param == "input"


async def test_more_tokens_than_one_request_may_hold_are_refused() -> None:
    wide = msgspec.structs.replace(EMBEDDER, context_length=MAX_INPUT_TOKENS)
    models = KnownModels()
    models.embedder = wide
    for extra, refused in ((0, False), (1, True)):
        tokens = [[1] * (MAX_INPUT_TOKENS // 2), [1] * (MAX_INPUT_TOKENS // 2 + extra)]
        body = EMBEDDINGS.parse(orjson.dumps({"model": wide.id, "input": tokens}))
        resolved = await resolve(EMBEDDINGS, body, principal(), models, TokenCounter())
        if not refused:
            assert await fitted(resolved, TokenCounter()) is resolved
            continue
        with pytest.raises(InvalidRequest, match="300001 tokens, max 300000") as over:
            await fitted(resolved, TokenCounter())
        assert over.value.code == "max_tokens_per_request"
        assert not isinstance(over.value, ContextLengthExceeded)
