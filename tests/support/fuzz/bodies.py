"""Bodies for every endpoint that models answer, but for the name of the model."""

from collections.abc import Callable
from random import Random
from typing import Any

from support.fuzz import parameters, texts
from support.fuzz.conversations import anthropic_messages, chat_messages, response_input
from support.fuzz.schemas import schema
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RERANK, RESPONSES, SCORE

Body = dict[str, Any]
Maker = Callable[[Random], Body]
COUNT_TOKENS = "/v1/messages/count_tokens"
_FEW = (1, 4, 16, 64)


def _chat(random: Random) -> Body:
    body: Body = {"messages": chat_messages(random), "max_tokens": random.choice(_FEW)}
    _set_some(random, body, parameters.CHAT)
    if "max_completion_tokens" in body and random.random() > parameters.BEYOND:
        del body["max_tokens"]
    if random.random() < 0.3:
        body["response_format"] = parameters.response_format(random)
    if random.random() < 0.03:
        tool = {"type": "function", "function": parameters.function(random)}
        body["tools"] = [tool] * random.choice((1, 128, 129))
    return _streamed(random, _wide(random, body))


def _completion(random: Random) -> Body:
    body: Body = {"prompt": _prompt(random), "max_tokens": random.choice(_FEW)}
    _set_some(random, body, parameters.COMPLETIONS)
    return _streamed(random, _wide(random, body))


def _response(random: Random) -> Body:
    body: Body = {"input": response_input(random), "max_output_tokens": random.choice((16, 16, 64, 512))}
    _set_some(random, body, parameters.RESPONSES)
    if random.random() < 0.15:
        body["text"] = parameters.text_format(random)
    if random.random() < 0.03:
        body["tools"] = [{"type": "function", **parameters.function(random)}] * random.choice((1, 128, 129))
    if body.get("background") is not True and random.random() < 0.4:
        body["stream"] = True
    if body.get("stream") and random.random() < 0.2:
        body["stream_options"] = random.choice(({}, {"include_obfuscation": False}, {"include_usage": True}))
    return body


def _message(random: Random) -> Body:
    body: Body = {"messages": anthropic_messages(random), "max_tokens": random.choice(_FEW)}
    _set_some(random, body, parameters.MESSAGES)
    if random.random() < 0.15:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema(random)}}
    if random.random() < 0.03:
        body["tools"] = [_own_tool(random)] * random.choice((1, 128, 129))
    if random.random() < 0.4:
        body["stream"] = True
    return body


def _own_tool(random: Random) -> Body:
    called = parameters.function(random)
    return {"name": called["name"], "input_schema": called["parameters"]}


def _embedding(random: Random) -> Body:
    body: Body = {"input": _prompt(random)}
    _set_some(random, body, parameters.EMBEDDINGS)
    return body


def _score(random: Random) -> Body:
    several = random.choice((1, 2, 8, 2_048))
    documents: object = [texts.odd(random)[:20] or "a"] * several if several > 1 else texts.odd(random)
    queries = random.choice((texts.odd(random), ["sea"], ["sea"] * several, ["sea"] * 3))
    body: Body = {"queries": queries, "documents": documents}
    _set_some(random, body, parameters.SCORE)
    return body


def _rerank(random: Random) -> Body:
    odd = texts.odd(random)[:20]
    document = random.choice(("a", odd, {"text": odd}, {"text": "a", "more": 1}))
    body: Body = {"query": texts.odd(random), "documents": [document] * random.choice((1, 2, 8, 2_048, 2_049))}
    _set_some(random, body, parameters.RERANK)
    return body


def _tokenized(random: Random) -> Body:
    body: Body = {"prompt": texts.odd(random)}
    if random.random() < 0.4:
        body = {"messages": chat_messages(random)}
    for name in ("add_special_tokens", "add_generation_prompt", "return_token_strs"):
        if random.random() < 0.3:
            body[name] = random.choice((True, False))
    return body


def _detokenized(random: Random) -> Body:
    return {"tokens": random.choice((_prompt(random), [], [0] * 20_000, [parameters.VOCABULARY - 1]))}


def _counted(random: Random) -> Body:
    body: Body = {"messages": anthropic_messages(random)}
    if random.random() < 0.2:
        body["tools"] = [_own_tool(random)]
    return body


def _set_some(random: Random, body: Body, known: dict[str, parameters.Value]) -> None:
    for name in random.sample(sorted(known), k=min(len(known), random.choice((0, 1, 1, 2, 2, 3, 5)))):
        body[name] = known[name](random)


def _wide(random: Random, body: Body) -> Body:
    if random.random() < 0.15:
        body |= {"n": random.choice((16, 128)), "max_tokens": random.choice((16, 512)), "temperature": 1}
    return body


def _streamed(random: Random, body: Body) -> Body:
    if random.random() < 0.4:
        body["stream"] = True
    if body.get("stream") and random.random() < 0.5:
        body["stream_options"] = parameters.STREAM_OPTIONS(random)
    return body


def _prompt(random: Random) -> object:
    last = parameters.VOCABULARY - 1
    if random.random() < parameters.BEYOND:
        return random.choice(([], [[]], [[1], []], [1, "a"], [2**31], [-1], [True], None, {}, ["hi"] * 129))
    return random.choice(
        (
            *(texts.odd(random), texts.plain(random, 8), [""], [texts.odd(random)] * 2, ["hi"] * 128, ["hi"] * 2),
            *([0], [last], [last + 1], [2**31 - 1], [[1, 2], [last]], [1] * random.choice((10, 2_000, 8_191, 20_000))),
        )
    )


PAID: dict[str, Maker] = {
    CHAT.path: _chat,
    COMPLETIONS.path: _completion,
    RESPONSES.path: _response,
    MESSAGES.path: _message,
    EMBEDDINGS.path: _embedding,
    SCORE.path: _score,
    RERANK.path: _rerank,
}
FREE: dict[str, Maker] = {
    "/v1/tokenize": _tokenized,
    "/v1/detokenize": _detokenized,
    COUNT_TOKENS: _counted,
}
POOLED = (EMBEDDINGS.path, SCORE.path, RERANK.path)
"""Those that embedding models answer."""
