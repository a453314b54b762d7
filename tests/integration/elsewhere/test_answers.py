"""What clients get of another company's server, and what that server gets of ours: neither sees the other."""

from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from support.elsewhere_stack import SOLD, ElsewhereStack, told_outside
from support.fakes.server_elsewhere import KEY_THERE, THERE, Elsewhere
from support.gateway_stack import CHAT, HELLO, KEY
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

WHOLE: dict[str, object] = {"model": SOLD, "messages": HELLO}
STREAM: dict[str, object] = {**WHOLE, "stream": True, "stream_options": {"include_usage": True}}
COMPLETION: dict[str, object] = {"model": SOLD, "prompt": "say hello to me"}
TOLD = TokenUsage(7, 8, 2)


async def _text(stack: ElsewhereStack, body: dict[str, object], path: str = CHAT) -> str:
    async with ClientSession() as session:
        response = await stack.gateway.post(session, body, path)
        text = await response.text()
        assert response.status == 200, text
        assert not list(told_outside(stack.gateway, text + str(response.headers)))
        return text


def _events(text: str) -> list[dict[str, Any]]:
    frames = text.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    return [orjson.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


@pytest.mark.parametrize("choices", [1, 2])
@pytest.mark.parametrize(
    ("path", "body", "type_"),
    [(CHAT, WHOLE, ChatCompletion), ("/v1/completions", COMPLETION, Completion)],
    ids=["chat", "completions"],
)
async def test_a_whole_answer_is_openais_and_ours(
    stack: ElsewhereStack, path: str, body: dict[str, object], type_: type, choices: int
) -> None:
    reply = orjson.loads(await _text(stack, {**body, "n": choices}, path))
    assert reply["model"] == SOLD
    assert reply["system_fingerprint"] == "fp_theirs"
    assert [choice["index"] for choice in reply["choices"]] == list(range(choices))
    assert reply["usage"]["completion_tokens"] == 8
    check_openai_type(reply, type_)
    check_openai_schema(reply, f"Create{type_.__name__}Response")
    (settled,) = await stack.gateway.settled()
    assert (settled.outcome, settled.usage, settled.claims.server) == (Outcome.COMPLETED, TOLD, SOLD)


@pytest.mark.parametrize("behaviour", [Elsewhere(), Elsewhere(usage_with_end=True)], ids=["apart", "with the end"])
async def test_a_stream_is_openais_and_ours(stack: ElsewhereStack, behaviour: Elsewhere) -> None:
    stack.server.behaviour = behaviour
    events = _events(await _text(stack, STREAM))
    assert {event["model"] for event in events} == {SOLD}
    for event in events:
        check_openai_type(event, ChatCompletionChunk)
        check_openai_schema(event, "CreateChatCompletionStreamResponse")
    said = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert said == "".join(f"word{number} " for number in range(1, 9))
    assert events[-1]["usage"]["total_tokens"] == 15
    (settled,) = await stack.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TOLD)


async def test_usage_is_told_to_who_asks_for_it_alone(stack: ElsewhereStack) -> None:
    events = _events(await _text(stack, {**WHOLE, "stream": True}))
    assert not any("usage" in event for event in events)


async def test_the_openai_client(stack: ElsewhereStack) -> None:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{stack.gateway.url}/v1", max_retries=0) as client:
        whole = await client.chat.completions.create(model=SOLD, messages=HELLO)
        assert whole.choices[0].message.content == "".join(f"word{number} " for number in range(1, 9))
        stream = await client.chat.completions.create(model=SOLD, messages=HELLO, stream=True, n=2)
        texts = ["", ""]
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == [whole.choices[0].message.content] * 2


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_nothing_of_the_tenant_goes_out(stack: ElsewhereStack, body: dict[str, object]) -> None:
    await _text(stack, {**body, "user": "jane@example.test", "metadata": {"a": "b"}, "store": True, "temperature": 0.5})
    (asked,) = stack.server.log
    assert asked.path == "/v1/chat/completions"
    expected: dict[str, object] = {"model": THERE, "messages": HELLO, "temperature": 0.5, "max_tokens": 64}
    if body is STREAM:
        expected |= {"stream": True, "stream_options": {"include_usage": True}}
    assert asked.body == expected
    assert asked.headers["authorization"] == f"Bearer {KEY_THERE}"
    assert not {name for name in asked.headers if name.startswith("x-")}
    assert "org_test" not in str(asked)


async def test_an_end_user_goes_as_a_hash_where_the_file_says_so(stack: ElsewhereStack) -> None:
    stack.sell(end_users=True, limit_as="max_completion_tokens")
    await _text(stack, {**WHOLE, "user": "jane@example.test"})
    sent = stack.server.log[0].body
    assert len(sent["user"]) == 32
    assert (sent["max_completion_tokens"], "max_tokens" in sent) == (64, False)


async def test_what_it_does_not_take_is_refused_before_anything_is_held(stack: ElsewhereStack) -> None:
    stack.sell(refuses=("logprobs",))
    async with ClientSession() as session:
        response = await stack.gateway.post(session, {**WHOLE, "logprobs": True})
        error = (await response.json())["error"]
    assert (response.status, error["param"], error["code"]) == (400, "logprobs", "unsupported_parameter")
    assert stack.server.log == []
    assert await stack.gateway.events() == []


async def test_a_very_long_answer(stack: ElsewhereStack) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "x" * 600_000}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67}
    stack.server.behaviour = Elsewhere(raw_at=1, raw=orjson.dumps({"usage": usage, "choices": choices}))
    reply = orjson.loads(await _text(stack, WHOLE))
    assert len(reply["choices"][0]["message"]["content"]) == 600_000
    (settled,) = await stack.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(7, 60))
