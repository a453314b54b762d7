"""A run through a real gateway: each answer is one request of the key, whoever dies."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from support.evals.stand import CHECK, EvalClients, completions, items
from support.fakes.gateway_ports import BASE
from support.gateway_fixture import pytest_asyncio_loop_factories
from support.gateway_stack import KEY, gateway_stack
from tokenyard.clients.gateway_answers import GatewayAnswers
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.core.evaluation.questions import Answered, Question
from tokenyard.core.ids import ApiKeyId
from tokenyard.evals.operator_store import LEASE_MS

__all__ = ["pytest_asyncio_loop_factories"]
ROWS = 5


class Died(BaseException):
    """The worker is gone: nothing catches this."""


class DyingAnswers:
    """Dies once it has the third answer, and before anybody wrote that down."""

    def __init__(self, inner: GatewayAnswers) -> None:
        self._inner = inner
        self._calls = 0

    async def ask(self, question: Question, **named: Any) -> Answered:
        answered = await self._inner.ask(question, **named)
        self._calls += 1
        if self._calls == 3:
            raise Died
        return answered


async def lend(key: ApiKeyId) -> str | None:
    return KEY if key == "key_acme" else None


async def test_every_answer_is_charged_once(clients: EvalClients, redis: Redis, tmp_path: Path) -> None:
    stand = clients.stand
    made = await clients.eval({**CHECK, "operation": "ne"})
    run = await clients.run(made, completions(items(ROWS), model=BASE.id, sampling_params={"max_completion_tokens": 8}))
    async with gateway_stack(redis, tmp_path / "gateway") as gateway, ApiConnection(gateway.url) as connection:
        answers = GatewayAnswers(connection, lend)
        with pytest.raises(BaseExceptionGroup) as died:
            await stand.worker("first", answers=DyingAnswers(answers)).step()
        assert died.group_contains(Died)
        stand.clock.advance(LEASE_MS / 1000 + 1)
        await stand.worker("second", answers=answers).step()
        charged = await gateway.settled(ROWS)
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert (ended.status, ended.result_counts.passed) == ("completed", ROWS)
    [usage] = ended.per_model_usage
    assert (usage.run_model_name, usage.invocation_count) == (BASE.id, ROWS)
    assert usage.total_tokens == sum(one.usage.prompt_tokens + one.usage.completion_tokens for one in charged)
