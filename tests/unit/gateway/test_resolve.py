"""What a call may cost at most."""

import orjson

from tokenyard.gateway.call import parse_call
from tokenyard.gateway.endpoints import COMPLETIONS
from tokenyard.gateway.prompt_size import TokenCounter
from tokenyard.gateway.resolve import resolve
from tokenyard.testing.gateway import BASE, KnownModels
from tokenyard.testing.limits import principal


async def test_an_echo_alone_makes_one_token_for_each_choice() -> None:
    body = {"model": BASE.id, "prompt": ["a", "b"], "n": 3, "echo": True, "max_tokens": 0}
    order = await resolve(parse_call(COMPLETIONS, orjson.dumps(body)), principal(), KnownModels(), TokenCounter())
    assert order.max_tokens == 0
    assert order.completion_tokens == 2 * 3
