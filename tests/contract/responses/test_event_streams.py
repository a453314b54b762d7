"""Events of responses, told again and while they are made in the background, as the real `openai` client sees them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import ClientSession
from openai import AsyncStream
from openai.types.responses import ResponseCreatedEvent, ResponseFailedEvent, ResponseStreamEvent
from redis.asyncio import Redis

from support.answers_stand import AnswersStand, answers_stand
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.fakes.scripted_server import ScriptedServer, called, said
from support.gateway_stack import until
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard.responses import event_streams, keeper
from tokenyard.storage.database import Database

Told = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "POLL_S", 0.02)


async def _all(events: AsyncStream[ResponseStreamEvent]) -> Told:
    return [event.to_dict() async for event in events]


async def _replayed(stand: AnswersStand, response: str, after: int | None = None) -> Told:
    more = {} if after is None else {"starting_after": after}
    return await _all(await stand.client.responses.retrieve(response, stream=True, **more))  # type: ignore[call-overload]


async def _until_text(events: AsyncIterator[ResponseStreamEvent], text: str) -> Told:
    """Return the events up to the delta that says `text`."""
    told: Told = []
    async for event in events:
        told.append(event.to_dict())
        if event.type == "response.output_text.delta" and event.delta == text:
            return told
    raise AssertionError(f"{text!r} was not said")


def _held_at(stand: AnswersStand, tokens: int | None) -> None:
    for server in stand.gateway.servers:
        server.behaviour.silent_at = tokens


async def test_the_events_of_a_stream_are_told_again(stand: AnswersStand) -> None:
    script = [
        said("Hel", logprob=-0.5),
        said("lo"),
        called(0, name="f", call="c"),
        called(0, arguments="{}"),
        said("!"),
    ]
    async with stand.scripted(ScriptedServer(script)):
        told = await _all(await stand.client.responses.create(model=BASE.id, input="x", stream=True))
    made = told[0]["response"]["id"]
    assert await _replayed(stand, made) == told
    for after in (0, 5, len(told) - 2, len(told) - 1, 1000):
        assert await _replayed(stand, made, after) == told[after + 1 :]
    for other in (stand.project, stand.stranger):
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made, stream=True)
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.COMPLETED


async def test_a_whole_answer_is_told_in_events_too(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x")
    *_, last = told = await _replayed(stand, made.id)
    assert (last["type"], last["response"]) == ("response.completed", made.to_dict())
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


async def test_what_is_asked_besides_is_refused_by_name(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x")
    for query, param in (
        ({"starting_after": 1}, "starting_after"),
        ({"stream": True, "starting_after": -1}, "starting_after"),
        ({"stream": True, "include_obfuscation": True}, "include_obfuscation"),
        ({"include_obfuscation": True}, "include_obfuscation"),
        ({"include": ["file_search_call.results"]}, "include"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await stand.client.get(f"/responses/{made.id}", cast_to=object, options={"params": query})
        assert refused.value.param == param


async def test_a_background_response_is_streamed(stand: AnswersStand) -> None:
    async with stand.scripted(ScriptedServer([said("Hel"), said("lo")])):
        events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
        told = await _all(events)
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[:4] == ["created", "queued", "in_progress", "output_item.added"]
    assert kinds[-1] == "completed"
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["response"]["status"] for event in told[:3]] == ["queued", "queued", "in_progress"]
    found = await stand.client.responses.retrieve(told[0]["response"]["id"])
    assert found.to_dict() == told[-1]["response"]
    assert (found.output_text, found.background) == ("Hello", True)
    assert await _replayed(stand, found.id) == told
    (settled,) = await stand.gateway.settled()
    assert (settled.outcome, settled.usage.completion_tokens) == (Outcome.COMPLETED, 2)
    await stand.gateway.nothing_is_held()


async def test_who_left_comes_back_to_where_it_was(stand: AnswersStand) -> None:
    """Also at another process, while the response is made: nothing is missed and nothing told twice."""
    _held_at(stand, 3)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    seen = await _until_text(events, "word3 ")
    await events.close()
    created = seen[0]
    again = await stand.client.responses.retrieve(
        created["response"]["id"], stream=True, starting_after=seen[3]["sequence_number"]
    )
    assert await _until_text(again, "word3 ") == seen[4:]
    assert await stand.gateway.events() == [], "it is made on"
    await stand.client.responses.cancel(created["response"]["id"])
    assert await _all(again) == [], "of what was cancelled there is no last event"
    (settled,) = await stand.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.CLIENT_LEFT, TokenUsage(1, 3))
    await stand.gateway.nothing_is_held()


async def test_any_process_tells_what_is_being_made(stand: AnswersStand, redis: Redis, tmp_path: Path) -> None:
    for server in stand.gateway.servers:
        server.behaviour = Behaviour(tokens=12, token_delay_s=0.05)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    first = await anext(events)
    assert isinstance(first, ResponseCreatedEvent)
    async with answers_stand(redis, stand.database, tmp_path / "second") as second:
        watched = await second.client.responses.retrieve(first.response.id, stream=True)
        seen = await _until_text(watched, "word2 ")
        seen += await _all(watched)
    told = [first.to_dict(), *await _all(events)]
    assert seen == told


async def test_what_has_come_of_a_cancelled_response_is_kept(stand: AnswersStand) -> None:
    _held_at(stand, 3)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    told = await _until_text(events, "word3 ")
    made = told[0]["response"]["id"]

    async def is_noted() -> bool:
        found = await stand.client.responses.retrieve(made)
        return found.status == "in_progress" and found.output_text == "word1 word2 word3 "

    await until(is_noted)
    await stand.client.responses.cancel(made)
    assert await _all(events) == []
    found = await stand.client.responses.retrieve(made)
    assert (found.status, found.output_text) == ("cancelled", "word1 word2 word3 ")
    assert found.output[0].to_dict()["status"] == "incomplete"
    assert await _replayed(stand, made) == told


async def test_a_deleted_response_has_no_more_events(stand: AnswersStand) -> None:
    _held_at(stand, 3)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    told = await _until_text(events, "word3 ")
    made = told[0]["response"]["id"]
    watched = await stand.client.responses.retrieve(made, stream=True)
    await _until_text(watched, "word3 ")
    await stand.client.responses.delete(made)
    assert await _all(watched) == await _all(events) == []
    await stand.gateway.settled()
    assert await stand.kept() == 0


async def test_under_a_key_of_its_own_the_same_request_gives_the_same_events(stand: AnswersStand) -> None:
    async def ask() -> Told:
        headers = {"Idempotency-Key": "once"}
        return await _all(
            await stand.client.responses.create(
                model=BASE.id, input="x", background=True, stream=True, extra_headers=headers
            )
        )

    told = await ask()
    assert await ask() == told == await _replayed(stand, told[0]["response"]["id"])
    await stand.gateway.settled(1)


async def test_a_client_that_takes_nothing_is_let_go_and_its_response_made(
    redis: Redis, database: Database, tmp_path: Path
) -> None:
    async with answers_stand(redis, database, tmp_path, stalled_s=0.3) as stand:
        for server in stand.gateway.servers:
            server.behaviour = Behaviour(tokens=400, text="x" * 400 * 20_000)
        body = {"model": BASE.id, "input": "x", "background": True, "stream": True, "max_output_tokens": 400}
        async with ClientSession() as session:
            response = await stand.gateway.post(session, body, "/v1/responses")
            assert response.status == 200
            (settled,) = await stand.gateway.settled()
            assert (settled.outcome, settled.usage.completion_tokens) == (Outcome.COMPLETED, 400)
            response.close()


async def test_a_failure_is_the_last_event(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour = Behaviour(status=400, body=b'{"error":{"message":"not like this","code":400}}')
    events = [
        event
        async for event in await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    ]
    last = events[-1]
    assert isinstance(last, ResponseFailedEvent)
    assert last.response.error is not None
    assert (last.response.error.code, last.response.error.message) == ("invalid_prompt", "not like this")
    assert [event.sequence_number for event in events] == [0, 1, 2, 3]
    assert await _replayed(stand, last.response.id) == [event.to_dict() for event in events]
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.FAILED


async def test_what_is_not_streamed_while_it_is_made_is_told_when_it_has_ended(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour = Behaviour(tokens=4, token_delay_s=0.05)
    made = await stand.client.responses.create(model=BASE.id, input="x", background=True)
    told = await _replayed(stand, made.id)
    assert told[-1]["type"] == "response.completed"
    assert sum(event["type"] == "response.output_text.delta" for event in told) == 1


async def test_a_long_answer_is_told_while_it_is_short_and_then_at_its_end(
    stand: AnswersStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MAX_NOTED_BYTES", 0)
    _held_at(stand, 3)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    told = await _until_text(events, "word3 ")
    made = told[0]["response"]["id"]

    async def in_progress() -> bool:
        return (await stand.client.responses.retrieve(made)).status == "in_progress"

    await until(in_progress)
    assert (await stand.client.responses.retrieve(made)).output == []
    await stand.client.responses.cancel(made)
    assert [event["type"] for event in await _replayed(stand, made)] == [event["type"] for event in told[:3]]


async def test_one_organization_has_so_many_open_and_no_more(
    stand: AnswersStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "MAX_STREAMS_OF_ONE", 1)
    _held_at(stand, 3)
    events = await stand.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    made = (await anext(events)).response.id  # type: ignore[union-attr]
    watched = await stand.client.responses.retrieve(made, stream=True)
    await anext(watched)
    with pytest.raises(openai.RateLimitError):
        await stand.client.responses.retrieve(made, stream=True)
    await watched.close()

    async def is_free() -> bool:
        try:
            await (await stand.client.responses.retrieve(made, stream=True)).close()
        except openai.RateLimitError:
            return False
        return True

    await until(is_free)
    await stand.client.responses.cancel(made)


async def test_what_stays_out_is_refused(stand: AnswersStand) -> None:
    """A conversation is kept with its responses, and no model here could read what another made of it."""
    with pytest.raises(openai.APIStatusError, match="Not allowed to POST on /v1/responses/compact") as refused:
        await stand.client.responses.compact(model=BASE.id, input="x")
    assert refused.value.status_code == 405
    with pytest.raises(openai.NotFoundError, match="POST /v1/conversations"):
        await stand.client.conversations.create()
    with pytest.raises(openai.BadRequestError) as named:
        await stand.client.responses.create(model=BASE.id, input="x", conversation="conv_1")
    assert named.value.param == "conversation"
