"""Conversations that are too long, and how many tokens one has, as the real `openai` client sees it."""

from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseCompletedEvent, ResponseInputParam

from support.answers_stand import AnswersStand
from support.fakes.gateway_ports import BASE
from support.fakes.tokenizers import save_word_tokenizer
from support.openai_schema import check_openai_schema
from support.request_bodies import image
from tokenyard.core.models import ImagesSpec
from tokenyard.metering.events import Outcome

ROOM = 200
WORDS = 40
"""Of each message; a word is a token, and so is what the template puts around it."""
EACH = WORDS + BASE.template_tokens_per_message
TOOL: FunctionToolParam = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}


def words(name: str, number: int = WORDS) -> str:
    return " ".join([name] * number)


def user(name: str, number: int = WORDS) -> dict[str, Any]:
    return {"role": "user", "content": words(name, number)}


@pytest.fixture
def small(stand: AnswersStand, tmp_path: Path) -> AnswersStand:
    """One replica of a model whose context has room for four messages and an answer."""
    del stand.gateway.replicas.listed[1:]
    save_word_tokenizer(tmp_path)
    context = ROOM + BASE.template_tokens + 16
    stand.gateway.models.base = msgspec.structs.replace(
        BASE, path=str(tmp_path), context_length=context, default_max_tokens=16
    )
    return stand


async def _create(stand: AnswersStand, given: str | list[Any], **more: Any) -> Response:
    made = await stand.client.responses.create(model=BASE.id, input=given, truncation="auto", **more)
    assert isinstance(made, Response)
    return made


def _read(stand: AnswersStand) -> list[str]:
    """Return the first word of each message of the last request that a model server got."""
    messages = stand.gateway.server.log[-1].body["messages"]
    return [(message.get("content") or "called").split()[0] for message in messages]


async def test_the_oldest_is_left_out_until_it_fits(small: AnswersStand) -> None:
    made = await _create(small, [user(name) for name in "abcdef"])
    assert _read(small) == ["c", "d", "e", "f"]
    assert made.truncation == "auto"
    (settled,) = await small.gateway.settled()
    assert (settled.outcome, settled.usage.prompt_tokens) == (Outcome.COMPLETED, 4 * WORDS)
    listed = await small.client.responses.input_items.list(made.id, order="asc")
    assert [item.to_dict()["content"][0]["text"][0] for item in listed.data] == list("abcdef"), "all of it is kept"  # type: ignore[index]


async def test_what_fits_is_left_whole(small: AnswersStand) -> None:
    await _create(small, [user(name) for name in "abcd"])
    assert _read(small) == ["a", "b", "c", "d"]


async def test_without_it_nothing_is_left_out(small: AnswersStand) -> None:
    for truncation in ("disabled", None):
        with pytest.raises(openai.BadRequestError) as refused:
            await small.client.responses.create(
                model=BASE.id,
                input=[user(name) for name in "abcdef"],  # type: ignore[misc]
                truncation=truncation,
            )
        assert refused.value.code == "context_length_exceeded"
    assert [server.log for server in small.gateway.servers] == [[], []]


async def test_instructions_are_never_left_out(small: AnswersStand) -> None:
    developer = {"role": "developer", "content": words("d")}
    given = [user("a"), developer, *(user(name) for name in "bcef")]
    await _create(small, given, instructions=words("s"))
    assert _read(small) == ["s", "d", "e", "f"]


async def test_a_call_goes_with_its_output(small: AnswersStand) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": words("o")}
    await _create(small, [call, user("a"), user("b"), output, user("c"), user("d")])
    assert _read(small) == ["a", "b", "c", "d"]
    await _create(small, [*(user(name) for name in "abcd"), call, output])
    assert _read(small)[-2:] == ["called", "o"]
    assert _read(small)[0] != "a"


async def test_a_conversation_goes_on_without_its_beginning(small: AnswersStand) -> None:
    for server in small.gateway.servers:
        server.behaviour.text = words("z", 8)
    made = await _create(small, words("a"))
    for name in "bcd":
        made = await _create(small, words(name), previous_response_id=made.id)
    assert _read(small) == ["z", "b", "z", "c", "z", "d"]
    made = await _create(small, words("e"), previous_response_id=made.id, background=True)
    assert made.status == "queued"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_said_last_has_to_fit(small: AnswersStand, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(small, [user("a"), user("b", 2 * ROOM)], stream=stream)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(small, [user("a"), user("b")], max_output_tokens=ROOM, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert [server.log for server in small.gateway.servers] == [[], []]


async def test_room_is_made_for_the_answer_that_is_asked_for(small: AnswersStand) -> None:
    await _create(small, [user(name) for name in "abcd"], max_output_tokens=16 + EACH)
    assert _read(small) == ["b", "c", "d"]


async def test_a_model_whose_tokens_are_not_known_says_so(stand: AnswersStand) -> None:
    await _create(stand, [user("a")])
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(stand, [user(name) for name in 30 * "abcd"])
    assert (refused.value.param, refused.value.code) == ("truncation", "unsupported_parameter")


async def test_it_is_counted_what_a_response_would_be_made_of(small: AnswersStand) -> None:
    client = small.client.responses
    raw = await client.input_tokens.with_raw_response.count(model=BASE.id, input=words("a"))
    plain = raw.parse()
    assert (plain.object, plain.input_tokens) == ("response.input_tokens", EACH + BASE.template_tokens)
    check_openai_schema(plain.to_dict(), "TokenCountsResource")
    told = await client.input_tokens.count(model=BASE.id, input=words("a"), instructions=words("s", 3))
    assert told.input_tokens == plain.input_tokens + 3 + BASE.template_tokens_per_message
    tools = await client.input_tokens.count(model=BASE.id, input=words("a"), tools=[TOOL])
    assert tools.input_tokens > plain.input_tokens + 10
    many: ResponseInputParam = [user(name) for name in "abcdef"]  # type: ignore[misc]
    whole = await client.input_tokens.count(model=BASE.id, input=many)
    assert whole.input_tokens == 6 * EACH + BASE.template_tokens
    cut = await client.input_tokens.count(model=BASE.id, input=many, truncation="auto")
    assert cut.input_tokens == 4 * EACH + BASE.template_tokens
    assert [server.log for server in small.gateway.servers] == [[], []]
    assert await small.gateway.events() == []


async def test_a_conversation_is_counted_from_its_beginning(small: AnswersStand) -> None:
    made = await small.client.responses.create(model=BASE.id, input=words("a", 4))
    counted = await small.client.responses.input_tokens.count(
        model=BASE.id, input=words("b", 4), previous_response_id=made.id
    )
    messages = 3 * BASE.template_tokens_per_message
    assert counted.input_tokens == 4 + 8 + 4 + messages + BASE.template_tokens
    for other in (small.project, small.stranger):
        with pytest.raises(openai.BadRequestError) as refused:
            await other.responses.input_tokens.count(model=BASE.id, input="b", previous_response_id=made.id)
        assert refused.value.code == "previous_response_not_found"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"personality": "friendly"}, "personality"),
        ({"max_output_tokens": 16}, "max_output_tokens"),
        ({"stream": True}, "stream"),
        ({"input": None}, "input"),
        ({"truncation": "middle"}, "truncation"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ],
)
async def test_what_cannot_be_counted_is_refused_by_name(
    small: AnswersStand, given: dict[str, Any], param: str
) -> None:
    body = {"model": BASE.id, "input": "x"} | given
    with pytest.raises(openai.BadRequestError) as refused:
        await small.client.post("/responses/input_tokens", body=body, cast_to=object)
    assert refused.value.param == param


async def test_a_model_that_cannot_be_counted(stand: AnswersStand) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be counted here"):
        await stand.client.responses.input_tokens.count(model=BASE.id, input="x")
    with pytest.raises(openai.NotFoundError):
        await stand.client.responses.input_tokens.count(model="nothing", input="x")


@pytest.mark.parametrize("stream", [False, True])
async def test_images_are_shown_to_a_model_that_sees(stand: AnswersStand, stream: bool) -> None:
    shown: ResponseInputParam = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": image(), "detail": "auto"},
            ],
        }
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        await stand.client.responses.create(model=BASE.id, input=shown, stream=stream)
    assert (refused.value.param, refused.value.code) == ("input", "unsupported_parameter")
    stand.gateway.models.base = msgspec.structs.replace(BASE, images=ImagesSpec(tokens=100))
    made = await stand.client.responses.create(model=BASE.id, input=shown, stream=stream)
    if isinstance(made, openai.AsyncStream):
        *_, last = [event async for event in made]
        assert isinstance(last, ResponseCompletedEvent)
        made = last.response
    await stand.client.responses.create(model=BASE.id, input="And now?", previous_response_id=made.id)
    first, second = [sent.body for server in stand.gateway.servers for sent in server.log]
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": image()}}]
    assert first["messages"][0]["content"] == second["messages"][0]["content"] == parts
    (item,) = (await stand.client.responses.input_items.list(made.id)).data
    assert item.to_dict()["content"][1] == {"type": "input_image", "detail": "auto", "image_url": image()}  # type: ignore[index]


@pytest.mark.parametrize(
    ("role", "url"),
    [("user", "https://example.com/a.png"), ("user", "data:image/png;base64,AAAA"), ("system", image())],
    ids=["address", "no image", "not a user's"],
)
async def test_an_image_that_is_not_taken_is_refused_by_name(stand: AnswersStand, role: str, url: str) -> None:
    stand.gateway.models.base = msgspec.structs.replace(BASE, images=ImagesSpec(tokens=100))
    given: Any = [{"role": role, "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}]
    with pytest.raises(openai.BadRequestError, match="'input'") as refused:
        await stand.client.responses.create(model=BASE.id, input=given)
    assert refused.value.param == "input"


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_some_of_the_tools_are_allowed(stand: AnswersStand, mode: str) -> None:
    other: FunctionToolParam = {**TOOL, "name": "g"}
    choice: Any = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "g"}]}
    made = await stand.client.responses.create(model=BASE.id, input="x", tools=[TOOL, other], tool_choice=choice)
    assert [tool.to_dict()["name"] for tool in made.tools] == ["f", "g"]
    assert not isinstance(made.tool_choice, str)
    assert made.tool_choice.to_dict() == choice
    (sent,) = [sent.body for server in stand.gateway.servers for sent in server.log]
    assert ([tool["function"]["name"] for tool in sent["tools"]], sent["tool_choice"]) == (["g"], mode)
    choice["tools"] = [{"type": "function", "name": "h"}]
    with pytest.raises(openai.BadRequestError) as refused:
        await stand.client.responses.create(model=BASE.id, input="x", tools=[TOOL], tool_choice=choice)
    assert refused.value.param == "tool_choice"
