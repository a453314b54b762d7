"""Every reply of a real replica has the fields that OpenAI's have, no others, and no null where OpenAI has none."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from support.openai_schema import SCHEMA_VARIABLE, check_openai_schema, check_openai_type
from support.replica_caller import CHAT, COMPLETIONS, MODEL, ReplicaCaller, chat, claims

pytestmark = [pytest.mark.timeout(500), pytest.mark.asyncio]

USAGE = {"include_usage": True, "continuous_usage_stats": True}
QUESTION = "What is the capital of France?"
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two-answers": {"n": 2, "temperature": 1},
    "stop": {"stop": ["Paris"]},
    "length": {"max_tokens": 1},
    "logprobs": {"logprobs": True},
    "top-logprobs": {"logprobs": True, "top_logprobs": 3},
    "json": {"response_format": {"type": "json_object"}, "max_tokens": 64},
    # Not OpenAI's: a gateway does not let them pass, and a replica gives nothing away that it is asked for so.
    "own": {"return_token_ids": True, "return_prompt_text": True, "echo": True},
}
COMPLETED: dict[str, dict[str, Any]] = {
    "plain": {},
    "two-prompts": {"prompt": ["One, two,", "A, B, C,"]},
    "two-answers": {"n": 2, "temperature": 1},
    "stop": {"stop": ["three"]},
    "logprobs": {"logprobs": 2},
    "echo": {"echo": True},
    "echo-logprobs": {"echo": True, "logprobs": 1},
    "own": {"return_token_ids": True},
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "weather"}}


def check(value: dict[str, Any], type_: type, schema: str) -> None:
    check_openai_type(value, type_)
    if SCHEMA_VARIABLE in os.environ:
        check_openai_schema(value, schema)


def check_usage(usage: dict[str, Any]) -> None:
    assert usage["prompt_tokens_details"].keys() == {"cached_tokens"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("kind", CHATS)
async def test_a_chat(caller: ReplicaCaller, kind: str) -> None:
    answer = await caller.ask(chat(QUESTION, **CHATS[kind]), claims())
    check(answer, ChatCompletion, "CreateChatCompletionResponse")
    check_usage(answer["usage"])
    assert answer["choices"][0]["message"]["refusal"] is None


@pytest.mark.parametrize("options", [None, {"include_usage": True}, USAGE], ids=["bare", "usage", "usage-so-far"])
@pytest.mark.parametrize("kind", CHATS)
async def test_every_event_of_a_streamed_chat(caller: ReplicaCaller, kind: str, options: dict[str, Any] | None) -> None:
    events = await caller.stream(chat(QUESTION, stream_options=options, **CHATS[kind]), claims())
    for event in events:
        check(event, ChatCompletionChunk, "CreateChatCompletionStreamResponse")
    if options is not None:
        check_usage(events[-1]["usage"])
        assert events.pop()["choices"] == []
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_what_only_whole_replies_of_vllm_have(caller: ReplicaCaller, endpoint: str) -> None:
    body = chat(QUESTION) if endpoint == CHAT else completion("plain")
    answer = await caller.ask({**body, "prompt_logprobs": 1, "add_special_tokens": True}, claims(endpoint=endpoint))
    check_openai_type(answer, ChatCompletion if endpoint == CHAT else Completion)


async def test_the_log_probabilities_of_a_stream_are_whole(caller: ReplicaCaller) -> None:
    body = chat(QUESTION, logprobs=True, top_logprobs=2)
    whole = await caller.ask(body, claims())
    events = await caller.stream(body, claims())
    parts = [event["choices"][0]["logprobs"] for event in events if event["choices"][0]["logprobs"]]
    assert all(part["refusal"] is None for part in parts)
    tokens = [entry["token"] for part in parts for entry in part["content"]]
    assert tokens == [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]]


@pytest.mark.parametrize("kind", COMPLETED)
async def test_a_completion(caller: ReplicaCaller, kind: str) -> None:
    answer = await caller.ask(completion(kind), claims(endpoint=COMPLETIONS))
    with as_openai_sends(answer) as checked:
        check(checked, Completion, "CreateCompletionResponse")
    check_usage(answer["usage"])


@pytest.mark.parametrize("options", [None, USAGE], ids=["bare", "usage-so-far"])
@pytest.mark.parametrize("kind", COMPLETED)
async def test_every_event_of_a_streamed_completion(
    caller: ReplicaCaller, kind: str, options: dict[str, Any] | None
) -> None:
    body = {**completion(kind), "stream_options": options}
    events = await caller.stream(body, claims(endpoint=COMPLETIONS))
    for event in events:
        with as_openai_sends(event) as checked:
            check(checked, Completion, "CreateCompletionResponse")
    if options is not None:
        check_usage(events[-1]["usage"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_cache_of_every_prompt_is_told(caller: ReplicaCaller, stream: bool) -> None:
    """As the replica reports it: the two must not differ, or one of them bills wrongly."""
    prompts = [f"{word} goes on and on. " * 20 for word in ("This", "That")]
    body = {"model": MODEL, "prompt": prompts, "max_tokens": 1, "temperature": 0}
    await caller.ask(body, claims(endpoint=COMPLETIONS))
    asked = claims(endpoint=COMPLETIONS)
    if stream:
        usage = (await caller.stream({**body, "stream_options": USAGE}, asked))[-1]["usage"]
    else:
        usage = (await caller.ask(body, asked))["usage"]
    reported = (await caller.report(asked.attempt)).usage
    assert reported.cached_tokens == usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


def completion(kind: str) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "One, two,", "max_tokens": 5, "temperature": 0, **COMPLETED[kind]}


@contextmanager
def as_openai_sends(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Fill the two nulls that OpenAI sends and that its types do not have.

    `finish_reason` is null until the end of a stream; an echoed prompt's first token has no log-probability.
    """
    filled = deepcopy(reply)
    for choice in filled["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
        if logprobs := choice["logprobs"]:
            for name, nothing in (("token_logprobs", 0.0), ("top_logprobs", {})):
                logprobs[name] = [nothing if one is None else one for one in logprobs[name]]
    yield filled


@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED], ids=["none", "auto", "required", "named"])
async def test_a_chat_with_tools(caller: ReplicaCaller, choice: str | dict[str, Any]) -> None:
    body = chat("How is the weather in Paris?", tools=[WEATHER], tool_choice=choice, max_tokens=64)
    answer = await caller.ask(body, claims())
    check(answer, ChatCompletion, "CreateChatCompletionResponse")
    (reply,) = answer["choices"]
    calls = reply["message"].get("tool_calls", [])
    if choice in ("required", NAMED):
        assert calls
        assert all(called(call["function"]["name"], call["function"]["arguments"]) for call in calls)
        assert reply["finish_reason"] == ("tool_calls" if choice == "required" else "stop")
    if choice == "none":
        assert not calls


@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED], ids=["none", "auto", "required", "named"])
async def test_a_streamed_chat_with_tools(caller: ReplicaCaller, choice: str | dict[str, Any]) -> None:
    body = chat("How is the weather in Paris?", tools=[WEATHER], tool_choice=choice, max_tokens=64)
    events = await caller.stream({**body, "stream_options": USAGE}, claims())
    for event in events:
        check(event, ChatCompletionChunk, "CreateChatCompletionStreamResponse")
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    parts = [part for delta in deltas for part in delta.get("tool_calls", []) if part["index"] == 0]
    if choice in ("required", NAMED):
        assert parts[0]["id"]
        assert parts[0]["type"] == "function"
        name = "".join(part["function"].get("name") or "" for part in parts)
        assert called(name, "".join(part["function"].get("arguments") or "" for part in parts))
        assert events[-2]["choices"][0]["finish_reason"] == ("tool_calls" if choice == "required" else "stop")


def called(name: str, arguments: str) -> bool:
    return name == "weather" and json.loads(arguments).keys() == {"city"}


@pytest.mark.parametrize(
    "change",
    [{"temperature": -3}, {"messages": "hello"}, {"max_tokens": "many"}],
    ids=["range", "shape", "type"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_refusal(caller: ReplicaCaller, change: dict[str, Any], stream: bool) -> None:
    async with caller.send({**chat(QUESTION), "stream": stream, **change}, claims()) as response:
        assert response.status == 400
        refusal = await response.json()
    check_error(refusal)
    assert refusal["error"]["type"] == "invalid_request_error"


async def test_a_prompt_that_does_not_fit(caller: ReplicaCaller) -> None:
    async with caller.send(chat("word " * 2000), claims()) as response:
        assert response.status == 400
        check_error(await response.json())


@pytest.mark.parametrize(
    "change", [{"logit_bias": {"999999999": 1}}, {"logprobs": True, "top_logprobs": 99}], ids=["token", "too-many"]
)
async def test_an_error_within_a_stream(caller: ReplicaCaller, change: dict[str, Any]) -> None:
    (event,) = await caller.stream(chat(QUESTION, **change), claims())
    check_error(event)


def check_error(reply: dict[str, Any]) -> None:
    assert reply.keys() == {"error"}
    check_openai_type(reply["error"], ErrorObject)
    if SCHEMA_VARIABLE in os.environ:
        check_openai_schema(reply, "ErrorResponse")
