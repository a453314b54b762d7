"""Tools from end to end: offered, called, answered and charged, through a gateway on a real engine."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from support.gateway_stack import KEY, GatewayStack
from support.replica_caller import MODEL, ReplicaCaller
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.core.models import ModelSpec
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.table import CHAT
from tokenyard.metering.events import Outcome

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

Json = dict[str, Any]


def _tool(name: str, description: str, **properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    function = {"name": name, "description": description, "parameters": schema, "strict": True}
    return {"type": "function", "function": function}


WEATHER = _tool("weather", "Tells the weather of a city.", city={"type": "string", "enum": ["Paris", "Rome", "Oslo"]})
CLOCK = _tool("clock", "Tells the time in a city.", city={"type": "string", "enum": ["Paris", "Rome", "Oslo"]})
TOOLS = [WEATHER, CLOCK]
NAMED = {"type": "function", "function": {"name": "clock"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
QUESTION = "How is the weather in Rome?"
MARKS = ("<tool", "</tool", "<|im_", "<tools>")


def _earlier(city: str, place: object) -> list[Json]:
    """Return a question of which the tool was called and the answer given."""
    arguments = json.dumps({"city": city})
    call = {"id": f"call_{place}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        {"role": "user", "content": f"How is the weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{place}", "content": f"sunny in {city}"},
        {"role": "assistant", "content": f"It is sunny in {city}."},
    ]


# A model of this size calls by itself where it has seen how.
SHOWN = [*_earlier("Paris", 1), *_earlier("Oslo", 2)]


@pytest.fixture
async def client(gateway: GatewayStack, small_spec: ModelSpec, base_model: Path) -> AsyncIterator[AsyncOpenAI]:
    base = BaseModels([small_spec], base_model.parent).get(MODEL)
    assert base is not None
    gateway.models.base = base  # so that it can count: the bound of a chat with tools is over the small context
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def _asked(client: AsyncOpenAI, stream: bool, messages: list[Json], **more: Any) -> tuple[Json, Json]:
    """Return the one choice, put together where it was streamed, and the usage."""
    body: Json = {"model": MODEL, "messages": messages, "tools": TOOLS, "max_tokens": 64, "temperature": 0, **more}
    if not stream:
        answer = (await client.chat.completions.create(**body)).model_dump()
        return answer["choices"][0], answer["usage"]
    async with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as events:
        answer = (await events.until_done()).current_completion_snapshot.model_dump()
    return answer["choices"][0], answer["usage"]


def _calls(choice: Json) -> list[tuple[str, Json]]:
    calls = choice["message"].get("tool_calls") or []
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


async def _check_books(gateway: GatewayStack, caller: ReplicaCaller, usage: Json, messages: list[Json]) -> None:
    """Both witnesses say what the client was told, and the hold was no less."""
    (settled,) = await gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    told = TokenUsage(usage["prompt_tokens"], usage["completion_tokens"], cached)
    assert settled.usage == told
    assert (await caller.report(settled.claims.attempt)).usage == told
    body = CHAT.parse(json.dumps({"model": MODEL, "messages": messages, "tools": TOOLS}).encode())
    assert usage["prompt_tokens"] <= body.prompts(gateway.models.base)[0].bound


def _check_text(choice: Json) -> None:
    assert not any(mark in (choice["message"]["content"] or "") for mark in MARKS), choice


each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@each_way
@pytest.mark.parametrize("choice", ["required", NAMED, ALLOWED], ids=["required", "named", "allowed"])
async def test_a_call_that_must_be_made(
    gateway: GatewayStack, caller: ReplicaCaller, client: AsyncOpenAI, choice: object, stream: bool
) -> None:
    messages: list[Json] = [{"role": "user", "content": QUESTION}]
    made, usage = await _asked(client, stream, messages, tool_choice=choice, parallel_tool_calls=False)
    [(name, arguments)] = _calls(made)
    assert name == "clock" or choice == "required"
    assert arguments.keys() == {"city"}
    _check_text(made)
    await _check_books(gateway, caller, usage, messages)


@each_way
async def test_a_call_that_the_model_chooses_to_make(
    gateway: GatewayStack, caller: ReplicaCaller, client: AsyncOpenAI, stream: bool
) -> None:
    messages = [*SHOWN, {"role": "user", "content": QUESTION}]
    made, usage = await _asked(client, stream, messages, tool_choice="auto")
    assert made["finish_reason"] == "tool_calls"
    assert ("weather", {"city": "Rome"}) in _calls(made)
    _check_text(made)
    await _check_books(gateway, caller, usage, messages)


@each_way
async def test_no_call_where_none_is_wanted(
    gateway: GatewayStack, caller: ReplicaCaller, client: AsyncOpenAI, stream: bool
) -> None:
    messages: list[Json] = [{"role": "user", "content": "Hello! How are you?"}]
    made, usage = await _asked(client, stream, messages, tool_choice="none")
    assert _calls(made) == []
    assert made["message"]["content"]
    await _check_books(gateway, caller, usage, messages)


@each_way
async def test_a_result_comes_back_in_the_next_turn(
    gateway: GatewayStack, caller: ReplicaCaller, client: AsyncOpenAI, stream: bool
) -> None:
    messages = [*SHOWN, *_earlier("Rome", 3)[:-1]]
    messages[-1]["content"] = "heavy snow in Rome"
    made, usage = await _asked(client, stream, messages)
    assert "snow" in made["message"]["content"]
    _check_text(made)
    await _check_books(gateway, caller, usage, messages)


def _earlier_both(first: str, second: str) -> list[Json]:
    """Return a question for which the tool was called twice at once, and the answer given."""
    both = [_earlier(city, f"{first}_{at}") for at, city in enumerate((first, second))]
    return [
        {"role": "user", "content": f"How is the weather in {first} and in {second}?"},
        {"role": "assistant", "content": None, "tool_calls": [call for talk in both for call in talk[1]["tool_calls"]]},
        *(talk[2] for talk in both),
        {"role": "assistant", "content": f"It is sunny in {first} and in {second}."},
    ]


@each_way
@pytest.mark.parametrize("parallel", [True, False])
async def test_calls_beside_each_other_in_history_and_one_at_most_where_one_is_wanted(
    gateway: GatewayStack, caller: ReplicaCaller, client: AsyncOpenAI, parallel: bool, stream: bool
) -> None:
    question = {"role": "user", "content": "How is the weather in Rome and in Paris?"}
    messages = [*_earlier_both("Paris", "Oslo"), question]
    made, usage = await _asked(client, stream, messages, tool_choice="required", parallel_tool_calls=parallel)
    # Where it may make several, a model of this size still makes one.
    calls = _calls(made)
    assert calls if parallel else len(calls) == 1
    assert made["finish_reason"] == "tool_calls"
    _check_text(made)
    await _check_books(gateway, caller, usage, messages)
