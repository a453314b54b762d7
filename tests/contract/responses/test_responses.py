"""The Responses API, as the real `openai` client sees it."""

from pathlib import Path

import msgspec
import openai
import pytest
from openai.types.responses import (
    FunctionToolParam,
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseFunctionToolCall,
    ResponseInputParam,
    ResponseOutputMessage,
)
from pydantic import BaseModel
from redis.asyncio import Redis

from support.answers_stand import AnswersStand, answers_stand
from support.fakes.gateway_ports import BASE
from support.fakes.scripted_server import PROMPT_TOKENS, ScriptedServer, called, said
from support.gateway_stack import HELLO
from support.openai_errors import error_of
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


async def test_a_whole_answer(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour.cached_tokens = 2
    answer = await stand.client.responses.create(model=BASE.id, input="say hello to me", instructions="be brief")
    assert answer.output_text == "".join(f"word{at} " for at in range(1, 9))
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (6, 8, 14)
    assert answer.usage.input_tokens_details.cached_tokens == 2
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == TokenUsage(6, 8, 2)
    assert settled.claims.endpoint == "/v1/responses"
    assert answer.id == "resp_" + settled.claims.attempt.removeprefix("req_").split(".")[0]
    (sent,) = [sent for server in stand.gateway.servers for sent in server.log]
    assert sent.path == "/v1/chat/completions"
    assert sent.body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "say hello to me"},
    ]
    found = await stand.client.responses.retrieve(answer.id)
    assert found.to_dict() == answer.to_dict()


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_metered_as_the_chat_completion_that_it_is(stand: AnswersStand, stream: bool) -> None:
    await stand.client.chat.completions.create(
        model=BASE.id, messages=HELLO, temperature=0.5, max_completion_tokens=20, stream=stream
    )
    await stand.gateway.settled()
    await stand.client.responses.create(
        model=BASE.id, input="say hello to me", temperature=0.5, max_output_tokens=20, stream=stream
    )
    settled = await stand.gateway.settled(2)
    assert settled[0].usage == settled[1].usage
    assert settled[0].outcome is settled[1].outcome is Outcome.COMPLETED
    first, second = [sent.body for server in stand.gateway.servers for sent in server.log]
    assert first == second


async def test_a_stream_tells_every_step(stand: AnswersStand) -> None:
    async with stand.scripted(ScriptedServer([said("Hel"), said("lo")])):
        stream = await stand.client.responses.create(model=BASE.id, input="x", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    assert last.response.output_text == "Hello"
    found = await stand.client.responses.retrieve(last.response.id)
    assert found.to_dict() == last.response.to_dict()
    (settled,) = await stand.gateway.settled()
    assert settled.usage == TokenUsage(PROMPT_TOKENS, 2, 2)


async def test_the_clients_own_stream_helper(stand: AnswersStand) -> None:
    async with (
        stand.scripted(ScriptedServer([said("Hel"), said("lo")])),
        stand.client.responses.stream(model=BASE.id, input="x") as stream,
    ):
        texts = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert texts == ["Hel", "Hello"]
    assert final.output_text == "Hello"


class City(BaseModel):
    name: str


async def test_parsed_output(stand: AnswersStand) -> None:
    async with stand.scripted(ScriptedServer([said('{"name":'), said('"Bern"}')])) as server:
        answer = await stand.client.responses.parse(model=BASE.id, input="x", text_format=City)
    assert answer.output_parsed == City(name="Bern")
    (asked,) = server.asked
    assert asked["response_format"]["json_schema"]["name"] == "City"
    assert asked["response_format"]["json_schema"]["schema"]["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_its_output_given(stand: AnswersStand, stream: bool) -> None:
    script = [
        said("Let me see."),
        called(0, name="weather", call="call_1"),
        called(0, arguments='{"city":'),
        called(1, name="weather", call="call_2", arguments='{"city":"Rome"}'),
        called(0, arguments='"Bern"}'),
    ]
    async with stand.scripted(ScriptedServer(script, finish_reason="tool_calls")) as server:
        answer = await stand.client.responses.create(
            model=BASE.id, input="the weather?", tools=[WEATHER], tool_choice="required", stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            *_, last = [event async for event in answer]
            assert isinstance(last, ResponseCompletedEvent)
            answer = last.response
        message, first, second = answer.output
        assert isinstance(message, ResponseOutputMessage)
        assert isinstance(first, ResponseFunctionToolCall)
        assert isinstance(second, ResponseFunctionToolCall)
        assert (first.call_id, first.name, first.arguments) == ("call_1", "weather", '{"city":"Bern"}')
        assert (second.call_id, second.arguments) == ("call_2", '{"city":"Rome"}')
        outputs: ResponseInputParam = [
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "rain"}]},
        ]
        await stand.client.responses.create(
            model=BASE.id, previous_response_id=answer.id, input=outputs, tools=[WEATHER]
        )
        whole: ResponseInputParam = [{"role": "user", "content": "the weather?"}]
        whole += [item.to_dict() for item in answer.output]  # type: ignore[misc]
        await stand.client.responses.create(model=BASE.id, input=whole + outputs, tools=[WEATHER], store=False)
    first_turn, remembered, repeated = (asked["messages"] for asked in server.asked)
    assert server.asked[0]["tools"][0]["function"]["name"] == "weather"
    assert server.asked[0]["tool_choice"] == "required"
    assert remembered[0] == first_turn[0]
    assert remembered[1]["content"] == "Let me see."
    assert [call["id"] for call in remembered[1]["tool_calls"]] == ["call_1", "call_2"]
    assert remembered[2:] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
    ]
    assert repeated == remembered


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_are_told_where_they_are_asked_for(stand: AnswersStand, stream: bool) -> None:
    async with stand.scripted(ScriptedServer([said("Hel", logprob=-0.5), said("lo", logprob=-1.5)])) as server:
        answer = await stand.client.responses.create(
            model=BASE.id, input="x", include=["message.output_text.logprobs"], top_logprobs=3, stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            events = [event async for event in answer]
            deltas = [event for event in events if event.type == "response.output_text.delta"]
            assert [event.logprobs[0].logprob for event in deltas] == [-0.5, -1.5]
            last = events[-1]
            assert isinstance(last, ResponseCompletedEvent)
            answer = last.response
    (asked,) = server.asked
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 3)
    message = answer.output[0]
    assert isinstance(message, ResponseOutputMessage)
    part = message.content[0].to_dict()
    assert [(one["token"], one["logprob"], one["bytes"]) for one in part["logprobs"]] == [  # type: ignore[attr-defined]
        ("Hel", -0.5, []),
        ("lo", -1.5, []),
    ]


async def test_a_conversation_goes_on_without_its_instructions(stand: AnswersStand) -> None:
    async with stand.scripted(ScriptedServer([said("A")])) as server:
        first = await stand.client.responses.create(model=BASE.id, input="one", instructions="be brief")
        second = await stand.client.responses.create(
            model=BASE.id, input="two", previous_response_id=first.id, stream=True
        )
        *_, last = [event async for event in second]
        assert isinstance(last, ResponseCompletedEvent)
        await stand.client.responses.create(
            model=BASE.id, input="three", previous_response_id=last.response.id, instructions="be long"
        )
    answered = {"role": "assistant", "content": "A"}
    assert server.asked[2]["messages"] == [
        {"role": "system", "content": "be long"},
        {"role": "user", "content": "one"},
        answered,
        {"role": "user", "content": "two"},
        answered,
        {"role": "user", "content": "three"},
    ]
    assert last.response.previous_response_id == first.id


async def test_an_item_stands_for_what_was_said(stand: AnswersStand) -> None:
    async with stand.scripted(ScriptedServer([said("A")])) as server:
        first = await stand.client.responses.create(model=BASE.id, input="one")
        given: ResponseInputParam = [
            {"type": "item_reference", "id": first.output[0].id or ""},
            {"role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
        ]
        await stand.client.responses.create(model=BASE.id, input=given)
        unknown: ResponseInputParam = [{"type": "item_reference", "id": "msg_" + "0" * 32 + "o0"}]
        with pytest.raises(openai.BadRequestError) as refused:
            await stand.client.responses.create(model=BASE.id, input=unknown)
        assert refused.value.code == "item_not_found"
    assert [message["role"] for message in server.asked[1]["messages"]] == ["assistant", "user"]


async def test_the_input_is_listed(stand: AnswersStand) -> None:
    given: ResponseInputParam = [{"role": "user", "content": f"{number}"} for number in range(5)]
    made = await stand.client.responses.create(model=BASE.id, input=given)
    page = await stand.client.responses.input_items.list(made.id, limit=2, order="asc")
    assert page.has_more
    found = [item async for item in page]
    assert [item.to_dict()["content"] for item in found] == [
        [{"type": "input_text", "text": f"{number}"}] for number in range(5)
    ]
    newest = await stand.client.responses.input_items.list(made.id, limit=1)
    assert newest.data[0].id == found[-1].id
    with pytest.raises(openai.BadRequestError):
        await stand.client.responses.input_items.list(made.id, after="msg_nothing")


async def test_a_deleted_response_is_gone(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x")
    await stand.client.responses.delete(made.id)
    for call in (stand.client.responses.retrieve, stand.client.responses.delete, stand.client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await stand.client.responses.create(model=BASE.id, input="x", previous_response_id=made.id)
    assert refused.value.code == "previous_response_not_found"
    assert await stand.kept() == 0


async def test_another_projects_response_looks_as_none(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x")
    nothing = "resp_" + "0" * 32
    for other in (stand.project, stand.stranger):
        calls = other.responses.retrieve, other.responses.delete, other.responses.cancel
        for call in (*calls, other.responses.input_items.list):
            with pytest.raises(openai.NotFoundError) as theirs:
                await call(made.id)
            with pytest.raises(openai.NotFoundError) as nobodys:
                await call(nothing)
            assert str(error_of(theirs.value)).replace(made.id, nothing) == str(error_of(nobodys.value))
        item: ResponseInputParam = [{"type": "item_reference", "id": made.output[0].id or ""}]
        with pytest.raises(openai.BadRequestError):
            await other.responses.create(model=BASE.id, input=item)
        with pytest.raises(openai.BadRequestError) as refused:
            await other.responses.create(model=BASE.id, input="x", previous_response_id=made.id)
        assert refused.value.code == "previous_response_not_found"
    assert (await stand.client.responses.retrieve(made.id)).id == made.id
    assert len(stand.gateway.server.log) + len(stand.gateway.servers[1].log) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_cut_by_its_bound_is_incomplete(stand: AnswersStand, stream: bool) -> None:
    for server in stand.gateway.servers:
        server.behaviour.tokens = 20
    answer = await stand.client.responses.create(model=BASE.id, input="x", max_output_tokens=16, stream=stream)
    if isinstance(answer, openai.AsyncStream):
        *_, last = [event async for event in answer]
        assert last.type == "response.incomplete"
        answer = last.response
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].to_dict()["status"] == "incomplete"
    assert (await stand.client.responses.retrieve(answer.id)).status == "incomplete"
    await stand.client.responses.create(model=BASE.id, input="go on", previous_response_id=answer.id)


async def test_a_stream_whose_replica_is_lost_fails_and_costs_what_came(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour.cut_at = 3
    stream = await stand.client.responses.create(model=BASE.id, input="x", stream=True)
    events = [event async for event in stream]
    last = events[-1]
    assert isinstance(last, ResponseFailedEvent)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert last.response.output_text == "word1 word2 word3 "
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.REPLICA_LOST
    assert settled.usage == TokenUsage(1, 3)
    assert (await stand.client.responses.retrieve(last.response.id)).status == "failed"
    with pytest.raises(openai.BadRequestError, match="is failed"):
        await stand.client.responses.create(model=BASE.id, input="x", previous_response_id=last.response.id)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_lost_before_its_first_token_is_not_noticed(stand: AnswersStand, stream: bool) -> None:
    lost, well = stand.gateway.servers
    lost.behaviour.cut_at = 0
    stand.gateway.replicas.listed[1] = msgspec.structs.replace(stand.gateway.replicas.listed[1], waiting=1)
    answer = await stand.client.responses.create(model=BASE.id, input="x", stream=stream)
    if isinstance(answer, openai.AsyncStream):
        *_, last = [event async for event in answer]
        assert isinstance(last, ResponseCompletedEvent)
        answer = last.response
    assert (len(lost.log), len(well.log)) == (1, 1)
    (settled,) = await stand.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(1, 8))
    assert (await stand.client.responses.retrieve(answer.id)).to_dict() == answer.to_dict()


async def test_what_no_replica_begins_costs_nothing_and_is_not_kept(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour.cut_at = 0
    with pytest.raises(openai.InternalServerError):
        await stand.client.responses.create(model=BASE.id, input="x", stream=True)
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.FAILED
    assert await stand.kept() == 0


async def test_a_client_that_leaves_is_charged_and_nothing_is_kept(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour.silent_at = 3
    stream = await stand.client.responses.create(model=BASE.id, input="x", stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta" and event.delta == "word3 ":
            break
    await stream.close()
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.CLIENT_LEFT
    assert settled.usage == TokenUsage(1, 3)
    await stand.gateway.nothing_is_held()
    assert await stand.kept() == 0


async def test_what_is_not_stored_is_nowhere(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        await stand.client.responses.retrieve(made.id)
    assert await stand.kept() == 0


async def test_a_full_organization_is_refused_before_its_model_runs(
    redis: Redis, database: Database, tmp_path: Path
) -> None:
    async with answers_stand(redis, database, tmp_path, quota_bytes=0) as full:
        with pytest.raises(openai.RateLimitError) as refused:
            await full.client.responses.create(model=BASE.id, input="x")
        assert refused.value.code == "storage_quota_exceeded"
        assert refused.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.RateLimitError):
            await full.client.chat.completions.create(model=BASE.id, messages=HELLO, store=True)
        assert [server.log for server in full.gateway.servers] == [[], []]
        await full.client.responses.create(model=BASE.id, input="x", store=False)
        (settled,) = await full.gateway.settled()
        assert settled.outcome is Outcome.COMPLETED
