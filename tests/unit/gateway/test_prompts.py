"""The quick bound of a prompt, and what a call may cost at most."""

import json

import msgspec
import orjson
import pytest

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE, KnownModels
from support.gateway_stack import HELLO
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import ContextLengthExceeded
from tokenyard.core.ids import RequestId
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS
from tokenyard.gateway.path.admit import admission_request
from tokenyard.gateway.path.resolve import resolve


def _chat(*contents: object, **more: object) -> PaidBody:
    messages = [{"role": "user", "content": content} for content in contents]
    return CHAT.parse(orjson.dumps({"model": BASE.id, "messages": messages, **more}))


def _completion(prompt: object, **more: object) -> PaidBody:
    return COMPLETIONS.parse(orjson.dumps({"model": BASE.id, "prompt": prompt, **more}))


def _bounds(body: PaidBody) -> list[int]:
    return [prompt.bound for prompt in body.prompts(BASE)]


def test_chat_counts_bytes_and_the_template() -> None:
    assert _bounds(_chat("añ")) == [3 + 8 + 6]
    assert _bounds(_chat("a", [{"type": "text", "text": "bc"}])) == [3 + 8 + 12]


def test_tools_count() -> None:
    tool = {"type": "function", "function": {"name": "f" * 100}}
    assert _bounds(_chat("a", tools=[tool]))[0] > _bounds(_chat("a"))[0] + 100


def test_tools_that_the_model_does_not_hear_of_count_nothing() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f" * 100, "g")]
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert _bounds(_chat("a", tools=tools, tool_choice=choice)) == _bounds(_chat("a", tools=tools[1:]))


def test_a_schema_may_hold_any_number() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"maximum": 10**30}}}
    body = CHAT.parse(json.dumps({"model": BASE.id, "messages": HELLO, "tools": [tool]}).encode())
    assert _bounds(body)[0] > 30
    assert json.loads(msgspec.json.encode(body.sent(BASE, 1)))["tools"] == [tool]


def test_completions_count_each_prompt() -> None:
    assert _bounds(_completion(["abc", "d"])) == [5, 3]
    assert _bounds(_completion([7, 8, 9])) == [5]
    assert _bounds(_completion([[7, 8], [9]])) == [4, 3]


async def test_the_hold_is_the_worst_case() -> None:
    body = _completion(["abc", "d"], n=3, max_tokens=10)
    resolved = await resolve(COMPLETIONS, body, principal(), KnownModels(), TokenCounter())
    request = admission_request(resolved, principal(), RequestId("req_1"), SystemClock())
    assert request.tokens == 8 + 2 * 3 * 10
    assert request.amount == 8 * 100 + 60 * 1000
    assert request.claims.attempt == "req_1.1"


async def test_without_a_tokenizer_the_bound_stands() -> None:
    with pytest.raises(ContextLengthExceeded):
        await resolve(CHAT, _chat("x" * 3000), principal(), KnownModels(), TokenCounter())
