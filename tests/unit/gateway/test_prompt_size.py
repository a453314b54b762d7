"""The quick bound of a prompt, and what a call may cost at most."""

import orjson
import pytest

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE, KnownModels
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import ContextLengthExceeded
from tokenyard.core.ids import RequestId
from tokenyard.gateway.endpoints.call import Call, parse_call
from tokenyard.gateway.endpoints.prompt_size import TokenCounter, prompt_bounds
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS
from tokenyard.gateway.path.admit import admission_request
from tokenyard.gateway.path.resolve import resolve


def _chat(*contents: object, **more: object) -> Call:
    messages = [{"role": "user", "content": content} for content in contents]
    return parse_call(CHAT, orjson.dumps({"model": BASE.id, "messages": messages, **more}))


def _completion(prompt: object, **more: object) -> Call:
    return parse_call(COMPLETIONS, orjson.dumps({"model": BASE.id, "prompt": prompt, **more}))


def test_chat_counts_bytes_and_the_template() -> None:
    assert prompt_bounds(_chat("añ"), BASE) == [3 + 8 + 6]
    assert prompt_bounds(_chat("a", [{"type": "text", "text": "bc"}]), BASE) == [3 + 8 + 12]


def test_tools_count() -> None:
    tool = {"type": "function", "function": {"name": "f" * 100}}
    assert prompt_bounds(_chat("a", tools=[tool]), BASE)[0] > prompt_bounds(_chat("a"), BASE)[0] + 100


def test_completions_count_each_prompt() -> None:
    assert prompt_bounds(_completion(["abc", "d"]), BASE) == [5, 3]
    assert prompt_bounds(_completion([7, 8, 9]), BASE) == [5]
    assert prompt_bounds(_completion([[7, 8], [9]]), BASE) == [4, 3]


async def test_the_hold_is_the_worst_case() -> None:
    call = _completion(["abc", "d"], n=3, max_tokens=10)
    order = await resolve(call, principal(), KnownModels(), TokenCounter())
    request = admission_request(order, principal(), RequestId("req_1"), SystemClock())
    assert request.tokens == 8 + 2 * 3 * 10
    assert request.amount == 8 * 100 + 60 * 1000
    assert request.claims.attempt == "req_1.1"


async def test_without_a_tokenizer_the_bound_stands() -> None:
    with pytest.raises(ContextLengthExceeded):
        await resolve(_chat("x" * 3000), principal(), KnownModels(), TokenCounter())
