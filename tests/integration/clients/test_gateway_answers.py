"""Questions asked through a real gateway: metered as any request, once under an idempotency key, refused in words."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.gateway_stack import KEY, gateway_stack
from tokenyard.clients.gateway_answers import GatewayAnswers
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.core.evaluation.questions import COMPLETION, NotAnswered, Question, plain_question
from tokenyard.core.ids import ApiKeyId

LENT = ApiKeyId("key_1")


async def lend(key: ApiKeyId) -> str | None:
    return KEY if key == LENT else None


async def test_an_answer_is_metered_once(redis: Redis, tmp_path: Path) -> None:
    async with gateway_stack(redis, tmp_path) as stack, ApiConnection(stack.url) as connection:
        answers = GatewayAnswers(connection, lend)
        for question in (plain_question("say hello", "hello"), Question(COMPLETION, {"prompt": "say hello"}, "hello")):
            name = f"job-{question.path}"
            said = [
                await answers.ask(question, model=BASE.id, key=LENT, idempotency_key=name, max_tokens=8)
                for _ in range(2)
            ]
            assert said[0] == said[1]
            assert said[0].text
            assert said[0].tokens.total_tokens > 0, "prompt and answer"
        await stack.settled(2)


async def test_what_is_refused_is_said(redis: Redis, tmp_path: Path) -> None:
    question = plain_question("say hello", "hello")
    async with gateway_stack(redis, tmp_path) as stack, ApiConnection(stack.url) as connection:
        answers = GatewayAnswers(connection, lend)
        with pytest.raises(NotAnswered) as unknown:
            await answers.ask(question, model="none", key=LENT, idempotency_key="a", max_tokens=8)
        assert unknown.value.passing, "a model that is live since just now may not be known yet"
        with pytest.raises(NotAnswered, match="was deleted") as gone:
            await answers.ask(question, model=BASE.id, key=ApiKeyId("key_2"), idempotency_key="a", max_tokens=8)
        assert not gone.value.passing
    async with ApiConnection("http://127.0.0.1:9") as nowhere:
        with pytest.raises(NotAnswered, match=r"^The gateway does not answer\.$") as away:
            await GatewayAnswers(nowhere, lend).ask(
                question, model=BASE.id, key=LENT, idempotency_key="a", max_tokens=8
            )
        assert away.value.passing
