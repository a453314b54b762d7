"""Which model a request gets, what it may cost at most, and what a model cannot do."""

import msgspec
import orjson
import pytest

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE, KnownModels
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, Endpoint
from tokenyard.gateway.path.resolve import ResolvedRequest, resolve

PLAIN = msgspec.structs.replace(BASE, calls_tools=False)
TOOL = {"type": "function", "function": {"name": "f"}}


async def _resolved(endpoint: Endpoint, models: KnownModels, **body: object) -> ResolvedRequest:
    parsed = endpoint.parse(orjson.dumps({"model": BASE.id, **body}))
    return await resolve(endpoint, parsed, principal(), models, TokenCounter())


async def test_an_echo_alone_makes_one_token_for_each_choice() -> None:
    resolved = await _resolved(COMPLETIONS, KnownModels(), prompt=["a", "b"], n=3, echo=True, max_tokens=0)
    assert resolved.max_tokens == 0
    assert resolved.completion_tokens == 2 * 3


@pytest.mark.parametrize(
    "wanted",
    [{"tools": [TOOL]}, {"tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "required"}],
    ids=["tools", "choice", "both"],
)
async def test_a_model_without_a_parser_calls_no_tools(wanted: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=r"^This model does not call tools\.$") as refused:
        await _resolved(CHAT, KnownModels(PLAIN), messages=[{"role": "user", "content": "x"}], **wanted)
    assert refused.value.param == "tools"


@pytest.mark.parametrize("wanted", [{"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": "none"}, {"tools": None}])
async def test_it_answers_where_none_are_to_be_called(wanted: dict[str, object]) -> None:
    assert await _resolved(CHAT, KnownModels(PLAIN), messages=[{"role": "user", "content": "x"}], **wanted)


async def test_a_choice_among_no_tools() -> None:
    with pytest.raises(InvalidRequest, match="only allowed when") as refused:
        await _resolved(CHAT, KnownModels(), messages=[{"role": "user", "content": "x"}], tool_choice="auto")
    assert refused.value.param == "tool_choice"
