"""What a call may cost at most."""

import orjson

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE, KnownModels
from tokenyard.gateway.endpoints.call import parse_call
from tokenyard.gateway.endpoints.prompt_size import TokenCounter
from tokenyard.gateway.endpoints.table import COMPLETIONS
from tokenyard.gateway.path.resolve import resolve


async def test_an_echo_alone_makes_one_token_for_each_choice() -> None:
    body = {"model": BASE.id, "prompt": ["a", "b"], "n": 3, "echo": True, "max_tokens": 0}
    order = await resolve(parse_call(COMPLETIONS, orjson.dumps(body)), principal(), KnownModels(), TokenCounter())
    assert order.max_tokens == 0
    assert order.completion_tokens == 2 * 3
