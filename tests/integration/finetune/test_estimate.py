"""What a job would take is said before it is made, and what is left of it while it trains."""

from collections.abc import Mapping

import pytest
from sqlalchemy import func, select

from support.finetune.cluster import STARTED_AT
from support.finetune.ports import TRAINING_RATE
from support.finetune.rows import questions, rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, ModelNotFound
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.tables import JobRow
from tokenyard.finetune.views import EstimateView, JobView

FIVE_STEPS_OF_FOUR = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}}


EXACT = {"type": "string_check", "name": "exact", "operation": "eq", "input": "a", "reference": "{{ item.answer }}"}


def two_of(grader: Mapping[str, object]) -> Mapping[str, object]:
    graders = {"one": grader, "two": grader, "exact": EXACT}
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": "one + two + exact"}


async def estimate(stack: FinetuneStack, **asked: object) -> EstimateView:
    file = await stack.upload(principal(), rows(20))
    body = {"model": "small-model", "training_file": file, "method": FIVE_STEPS_OF_FOUR, **asked}
    return EstimateView.of(await stack.creation.estimate(principal(), JobRequest.model_validate(body)))


async def test_the_bound_is_what_creation_reserves_and_nothing_is_left_behind(stack: FinetuneStack) -> None:
    known = await estimate(stack)
    assert (known.steps, known.expected_tokens, known.expected_cost_dollars, known.expected_seconds) == (
        *(5, None, None),
        None,
    )
    async with stack.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(JobRow)) == 0
    assert stack.reservations.open == {}
    job = await stack.create(method=FIVE_STEPS_OF_FOUR)
    assert (known.max_tokens, job.reserved_amount) == (job.reserved_tokens, job.reserved_tokens * TRAINING_RATE)
    assert known.max_cost_dollars == f"{job.reserved_amount / 1e9:.9f}".rstrip("0")
    assert known.price_per_million_tokens_dollars == "3.00"


async def test_what_a_grader_may_ask_of_models_is_told_beside_the_cost(stack: FinetuneStack) -> None:
    judge = {
        "type": "score_model",
        "name": "judge",
        "model": "small-model",
        "input": [{"role": "user", "content": "How good is {{ sample.output_text }}?"}],
    }
    asked = {
        "training_file": await stack.upload(principal(), questions(20)),
        "validation_file": await stack.upload(principal(), questions(70)),
    }
    settings = {"hyperparameters": {"n_epochs": 2, "num_generations": 4}}
    for grader, most in ((judge, 2 * 20 * 4 + 3 * 64), (two_of(judge), 2 * (2 * 20 * 4 + 3 * 64)), (EXACT, None)):
        method = {"type": "reinforcement", "reinforcement": {"grader": grader, **settings}}
        assert (await estimate(stack, method=method, **asked)).max_grader_requests == most


async def test_what_trained_before_tells_what_to_expect(stack: FinetuneStack) -> None:
    job = await stack.create(method=FIVE_STEPS_OF_FOUR)
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", *["a step"] * 5, total=5)
    await stack.cluster.succeed(f"{job.id}-1", tokens=job.reserved_tokens // 2)
    await stack.rounds(3)
    known = await estimate(stack)
    assert known.expected_tokens == pytest.approx(job.reserved_tokens / 2, abs=1)
    assert known.expected_seconds == 5, "four of five steps took four seconds"
    assert known.expected_cost_dollars is not None
    other = await estimate(stack, suffix="else", seed=3, method=None)
    assert other.steps > known.steps
    assert other.expected_seconds is not None


async def test_it_refuses_what_creation_refuses(stack: FinetuneStack) -> None:
    with pytest.raises(ModelNotFound):
        await estimate(stack, model="nobody")
    with pytest.raises(InvalidRequest, match="No such File"):
        await estimate(stack, training_file="file-none")
    theirs = await stack.upload(principal("rival"), rows(20))
    with pytest.raises(InvalidRequest, match="No such File"):
        await estimate(stack, training_file=theirs)


async def test_a_job_that_trains_says_when_it_will_have_ended(stack: FinetuneStack) -> None:
    job = await stack.create(method=FIVE_STEPS_OF_FOUR)
    await stack.rounds(2)
    assert JobView.of(await stack.job(job.id)).estimated_finish is None
    await stack.cluster.tell(f"{job.id}-1", "a step", total=5)
    await stack.rounds(1)
    assert JobView.of(await stack.job(job.id)).estimated_finish is None, "one step has no speed"
    await stack.cluster.tell(f"{job.id}-1", "a step", "a step", first=2, total=5)
    await stack.rounds(1)
    assert JobView.of(await stack.job(job.id)).estimated_finish == STARTED_AT + 5
    await stack.cluster.succeed(f"{job.id}-1", tokens=9)
    await stack.rounds(3)
    assert JobView.of(await stack.job(job.id)).estimated_finish is None
