"""Responses that are made in the background, as the real `openai` client sees them."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai.types.responses import Response, ResponseCompletedEvent
from redis.asyncio import Redis
from sqlalchemy import TextClause, text

from support.answers_stand import AnswersStand, answers_stand
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import HELLO, until
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard.responses import keeper
from tokenyard.storage.database import Database
from tokenyard.storage.time_limits import TimeLimits


async def _begun(stand: AnswersStand) -> Response:
    """Begin a response that comes to three tokens and no further, and wait until a replica has it."""
    for server in stand.gateway.servers:
        server.behaviour.silent_at = 3
    made = await stand.client.responses.create(model=BASE.id, input="x", background=True)
    await until(lambda: any(sent.completion_tokens == 3 for server in stand.gateway.servers for sent in server.log))
    return made


async def _ended(stand: AnswersStand, response: str) -> Response:
    async def has_ended() -> bool:
        return (await stand.client.responses.retrieve(response)).status not in ("queued", "in_progress")

    await until(has_ended)
    return await stand.client.responses.retrieve(response)


def _in_flight(stand: AnswersStand) -> float | None:
    return stand.gateway.registry.get_sample_value("tokenyard_requests_in_flight")


async def _is_aborted(stand: AnswersStand) -> None:
    await until(lambda: all(sent.aborted for server in stand.gateway.servers for sent in server.log))


async def test_a_response_is_made_after_its_client_was_answered(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="say hello to me", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    found = await _ended(stand, made.id)
    assert (found.status, found.background) == ("completed", True)
    assert found.output_text.startswith("word1 ")
    (settled,) = await stand.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(4, 8))
    await stand.gateway.nothing_is_held()
    again = await stand.client.responses.cancel(made.id)
    assert again.to_dict() == found.to_dict()
    await stand.client.responses.create(model=BASE.id, input="and now?", previous_response_id=made.id)
    await until(lambda: _in_flight(stand) == 0)


async def test_it_is_in_progress_while_it_is_made(stand: AnswersStand) -> None:
    made = await _begun(stand)

    async def in_progress() -> bool:
        return (await stand.client.responses.retrieve(made.id)).status == "in_progress"

    await until(in_progress)
    with pytest.raises(openai.BadRequestError, match="is in_progress"):
        await stand.client.responses.create(model=BASE.id, input="x", previous_response_id=made.id)
    await stand.client.responses.cancel(made.id)


async def test_a_cancelled_response_ends_and_costs_what_was_made(stand: AnswersStand) -> None:
    made = await _begun(stand)
    for other in (stand.stranger, stand.project):
        with pytest.raises(openai.NotFoundError):
            await other.responses.cancel(made.id)
    cancelled = await stand.client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    await _is_aborted(stand)
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.CLIENT_LEFT  # so that the replica's report is what is charged
    await stand.gateway.nothing_is_held()
    await until(lambda: _in_flight(stand) == 0)
    assert (await stand.client.responses.cancel(made.id)).to_dict() == cancelled.to_dict()
    assert (await stand.client.responses.retrieve(made.id)).status == "cancelled"


async def test_any_process_can_cancel(stand: AnswersStand, redis: Redis, tmp_path: Path) -> None:
    made = await _begun(stand)
    async with answers_stand(redis, stand.database, tmp_path / "second") as second:
        assert (await second.client.responses.cancel(made.id)).status == "cancelled"
    await _is_aborted(stand)


async def test_a_deleted_response_ends(stand: AnswersStand) -> None:
    made = await _begun(stand)
    await stand.client.responses.delete(made.id)
    await _is_aborted(stand)
    await stand.gateway.settled()
    assert await stand.kept() == 0


async def test_only_what_is_made_in_the_background_can_be_cancelled(stand: AnswersStand) -> None:
    made = await stand.client.responses.create(model=BASE.id, input="x")
    with pytest.raises(openai.BadRequestError):
        await stand.client.responses.cancel(made.id)
    assert (await stand.client.responses.retrieve(made.id)).status == "completed"


async def test_what_the_model_refuses_fails_and_costs_nothing(stand: AnswersStand) -> None:
    for server in stand.gateway.servers:
        server.behaviour = Behaviour(status=400, body=b'{"error":{"message":"not like this","code":400}}')
    made = await stand.client.responses.create(model=BASE.id, input="x", background=True)
    found = await _ended(stand, made.id)
    assert found.status == "failed"
    assert found.error is not None
    assert (found.error.code, found.error.message) == ("invalid_prompt", "not like this")
    (settled,) = await stand.gateway.settled()
    assert settled.outcome is Outcome.FAILED


async def test_limits_and_bounds_are_told_at_once(stand: AnswersStand) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await stand.client.responses.create(model=BASE.id, input="x " * 3000, background=True, max_output_tokens=16)
    assert refused.value.code == "context_length_exceeded"
    stand.gateway.limit(requests_per_minute=1)
    await stand.client.responses.create(model=BASE.id, input="x", store=False)
    with pytest.raises(openai.RateLimitError):
        await stand.client.responses.create(model=BASE.id, input="x", background=True)
    assert await stand.kept() == 0


@pytest.fixture
async def hurried(
    redis: Redis, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AnswersStand]:
    """A gateway that does not wait for SQL."""
    monkeypatch.setattr(keeper, "WAIT_LIMIT_S", 0.3)
    monkeypatch.setattr(keeper, "RETRY_S", 0.05)
    impatient = Database(database.engine.url.render_as_string(hide_password=False), TimeLimits(lock_s=0.1))
    async with answers_stand(redis, impatient, tmp_path) as opened:
        yield opened
    await impatient.close()


async def test_while_sql_is_away(hurried: AnswersStand, database: Database) -> None:
    """What is waited for is answered and written later; what cannot be noted down is not begun."""
    async with database.transaction() as holder:
        await holder.execute(_lock(database))
        await hurried.client.responses.create(model=BASE.id, input="x", store=False)
        await hurried.client.chat.completions.create(model=BASE.id, messages=HELLO)
        made = await hurried.client.responses.create(model=BASE.id, input="x")
        with pytest.raises(openai.InternalServerError) as refused:
            await hurried.client.responses.create(model=BASE.id, input="x", background=True)
        assert refused.value.status_code == 503
    await until(lambda: _is_kept(hurried, 1))
    assert (await hurried.client.responses.retrieve(made.id)).to_dict() == made.to_dict()
    settled = await hurried.gateway.settled(4)
    assert sorted(one.outcome for one in settled) == [*3 * [Outcome.COMPLETED], Outcome.FAILED]
    assert sum(len(server.log) for server in hurried.gateway.servers) == 3


async def test_a_streamed_response_outlives_an_outage_of_sql(hurried: AnswersStand, database: Database) -> None:
    for server in hurried.gateway.servers:
        server.behaviour = Behaviour(tokens=20, token_delay_s=0.05)
    events = await hurried.client.responses.create(model=BASE.id, input="x", background=True, stream=True)
    async with database.transaction() as holder:
        await holder.execute(_lock(database))
        async for event in events:
            if event.type == "response.output_text.delta" and event.delta == "word12 ":
                break
    *_, last = [event async for event in events]
    assert isinstance(last, ResponseCompletedEvent)
    found = await _ended(hurried, last.response.id)
    assert found.to_dict() == last.response.to_dict()
    (settled,) = await hurried.gateway.settled()
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(1, 20))


def _lock(database: Database) -> TextClause:
    """Return what lets nobody else write; with SQLite any statement of a transaction does."""
    return text("SELECT 1" if database.is_sqlite else "LOCK TABLE responses_answers IN EXCLUSIVE MODE")


async def _is_kept(stand: AnswersStand, number: int) -> bool:
    return await stand.kept() == number
