"""Responses on the real engine, with the real client: what they say, and both witnesses."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseCompletedEvent
from redis.asyncio import Redis

from support.answers_stand import answer_keeper
from support.gateway_stack import KEY, GatewayStack, gateway_stack
from support.replica_caller import MODEL, ReplicaCaller
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.clock import SystemClock
from tokenyard.core.replica import Replica
from tokenyard.storage.database import Base, Database

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]


@pytest.fixture
async def gateway(redis: Redis, tmp_path: Path, caller: ReplicaCaller) -> AsyncIterator[GatewayStack]:
    import_all_tables()
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'answers.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    meter_secret, bearer = caller.cluster.meter_secret, caller.cluster.bearer
    async with (
        answer_keeper(database, SystemClock()) as keeper,
        gateway_stack(redis, tmp_path, replicas=0, answers=keeper, meter_secret=meter_secret, bearer=bearer) as stack,
    ):
        stack.models.base = msgspec.structs.replace(stack.models.base, id=MODEL, context_length=1024)
        stack.replicas.listed = [Replica(caller.target.name, MODEL, caller.target.url)]
        yield stack
    await database.close()


async def test_a_conversation_of_responses(gateway: GatewayStack, caller: ReplicaCaller) -> None:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        first = await client.responses.create(
            model=MODEL, input="What is the capital of France?", temperature=0, max_output_tokens=16
        )
        assert "Paris" in first.output_text
        stream = await client.responses.create(
            model=MODEL,
            input="Say it once more.",
            previous_response_id=first.id,
            temperature=0,
            max_output_tokens=64,
            include=["message.output_text.logprobs"],
            stream=True,
        )
        events = [event async for event in stream]
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert isinstance(last, ResponseCompletedEvent) or last.response.incomplete_details is not None
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == last.response.output_text
    settled = await gateway.settled(2)
    assert first.usage is not None
    assert last.response.usage is not None
    assert last.response.usage.input_tokens > first.usage.total_tokens
    for told, event in zip((first.usage, last.response.usage), settled, strict=True):
        assert (told.input_tokens, told.output_tokens) == (event.usage.prompt_tokens, event.usage.completion_tokens)
        report = await caller.report(event.claims.attempt)
        assert (report.usage.prompt_tokens, report.usage.completion_tokens) == (told.input_tokens, told.output_tokens)
