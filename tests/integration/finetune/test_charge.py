"""A job and its charge end together: no Redis that is away and no worker that dies comes between them."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.finetune.stack import FinetuneStack
from support.redis_reader import read_usage
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.ids import JobId
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.states import JobState
from tokenyard.metering.events import TrainingFinished
from tokenyard.metering.stream import USAGE_TOPIC, usage_carrier
from tokenyard.storage.redis import connect_redis
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.webhooks.events import write_event


def outbox(stack: FinetuneStack, redis: Redis) -> TransactionalOutbox:
    return TransactionalOutbox(stack.database, redis, stack.clock, {USAGE_TOPIC: usage_carrier(redis)})


async def finish_a_job(stack: FinetuneStack) -> Job:
    job = await stack.create()
    await stack.rounds(3)
    await stack.cluster.succeed(f"{job.id}-1", tokens=400)
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert ended.state is JobState.SUCCEEDED
    return ended


async def test_a_job_that_ends_while_redis_is_away_is_charged_when_it_is_back(
    stack: FinetuneStack, redis: Redis
) -> None:
    ended = await finish_a_job(stack)
    away = connect_redis("redis://127.0.0.1:1/0")
    with pytest.raises(RedisError):
        await outbox(stack, away).step()
    await away.aclose()
    await outbox(stack, redis).step()
    [event] = await read_usage(redis, ended.organization)
    assert isinstance(event, TrainingFinished)
    assert (event.job, event.trained_tokens) == (ended.id, 400)


async def test_billing_is_told_which_jobs_may_still_be_charged(stack: FinetuneStack) -> None:
    ended, running = await finish_a_job(stack), await stack.create()
    jobs = JobOperatorStore(stack.database, stack.clock, write_event)
    asked = [ended.id, running.id, JobId("ftjob-never-made")]
    assert ended.finished_at is not None
    moment_ms = ended.finished_at * 1000
    assert await jobs.unfinished(asked, since_ms=moment_ms) == {ended.id, running.id}
    assert await jobs.unfinished(asked, since_ms=moment_ms + 1) == {running.id}
    assert await jobs.unfinished([], since_ms=0) == set()


async def test_a_charge_that_redis_forgot_is_sent_again(stack: FinetuneStack, tmp_path: Path) -> None:
    await finish_a_job(stack)
    [sent] = await stack.charges()
    valkey = Valkey(tmp_path, free_port())
    valkey.start()
    redis = connect_redis(valkey.url)
    try:
        await outbox(stack, redis).step()
        valkey.kill()
        valkey.forget()
        valkey.start()
        await outbox(stack, redis).step()
        assert await read_usage(redis, sent.organization) == [sent]
    finally:
        await redis.aclose()
        valkey.kill()
