"""What a grader asks of models while a job trains goes through the attempt's folder, and is charged once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from support.finetune.ports import SMALL_MODEL, FixedModels
from support.finetune.rows import questions
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import PermissionDenied
from tokenyard.core.evaluation.questions import NotAnswered, Question
from tokenyard.core.graders.grading import model_questions
from tokenyard.core.graders.questions import question_id, questions_name
from tokenyard.core.graders.shapes import parsed_grader
from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.principal import AllowedModels
from tokenyard.core.training import ANSWERS_FOLDER, QUESTIONS_FOLDER, job_folder, submission_id
from tokenyard.finetune.grader_runs.training_questions import TrainingQuestions
from tokenyard.finetune.job import Job
from tokenyard.finetune.progress import JobProgress
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.evaluation.grading import Grading
from tokenyard_deployments.training.failures import TrainingFailed

SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "small-model",
    "input": [{"role": "user", "content": "How good is {{ sample.output_text }}?"}],
    "range": [0, 10],
}
MIXED = {
    "type": "multi",
    "name": "mixed",
    "graders": {
        "judge": SCORE,
        "other": {**SCORE, "input": [{"role": "user", "content": "How short is {{ sample.output_text }}?"}]},
        "exact": {
            "type": "string_check",
            "name": "exact",
            "operation": "eq",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
        },
    },
    "calculate_output": "judge + 100 * other + 1000 * exact",
}


def answered(text: str) -> GradedAnswer:
    return GradedAnswer({"answer": "Blue"}, text)


def score(_model: str, question: Question) -> str:
    """Give so many points as there are vowels, and half of them for being short."""
    asked: Any = question.asked
    text = asked["messages"][0]["content"]
    points = sum(text.lower().split()[-1].count(vowel) for vowel in "aeiou")
    return msgspec.json.encode({"result": points if text.startswith("How good") else points / 2}).decode()


async def training(stack: FinetuneStack, grader: dict[str, Any] = SCORE, **request: Any) -> Job:
    """Return a job whose first attempt is under way."""
    stack.answers.says = score
    file = await stack.upload(principal(), questions(20))
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    job = await stack.create(training_file=file, method=method, **request)
    await stack.rounds(2)
    await stack.cluster.begin(submission_id(job.id, 1))
    return await stack.job(job.id)


def grading(stack: FinetuneStack, job: Job, grader: dict[str, Any] = SCORE, patience_s: float = 60) -> Grading:
    folder = job_folder(job.organization, job.id, job.attempt)
    return Grading(parsed_grader(grader), AttemptFolder(stack.blobs.url_of(folder)), patience_s=patience_s)


async def rewards(stack: FinetuneStack, asking: Grading, texts: Sequence[str]) -> list[float]:
    """Let training grade while the worker goes its rounds."""
    task = asyncio.create_task(asyncio.to_thread(asking.rewards, [answered(text) for text in texts]))
    while not task.done():
        await stack.round()
        await asyncio.sleep(0.05)
    return await task


async def test_models_say_what_answers_are_worth_in_the_name_of_the_jobs_key(stack: FinetuneStack) -> None:
    job = await training(stack)
    assert await rewards(stack, grading(stack, job), ["Blue", "Sky", "Azure", "Blue"]) == [2, 0, 3, 2]
    assert len(stack.answers.asked) == 3, "the same answer is asked about once"
    assert {(model, key) for model, _, key in stack.answers.asked} == {("small-model", job.key)}
    folder = job_folder(job.organization, job.id, 1)
    assert await stack.blobs.names(f"{folder}/{QUESTIONS_FOLDER}") == []


async def test_a_multi_asks_for_each_of_its_graders(stack: FinetuneStack) -> None:
    job = await training(stack, MIXED)
    assert await rewards(stack, grading(stack, job, MIXED), ["Blue", "Azure"]) == [1102, 153]
    assert len(stack.answers.asked) == 4


async def test_what_one_attempt_had_answered_another_has_again_for_nothing(stack: FinetuneStack) -> None:
    job = await training(stack)
    await rewards(stack, grading(stack, job), ["Blue", "Azure"])
    stack.cluster.forget(submission_id(job.id, 1))
    await stack.rounds(2)
    job = await stack.job(job.id)
    assert job.attempt == 2
    assert await rewards(stack, grading(stack, job), ["Azure", "Blue", "Sky"]) == [3, 2, 0]
    assert len(stack.answers.charged) == 3
    assert set(stack.answers.charged.values()) == {1}


async def test_a_worker_that_dies_while_it_asks_leaves_the_rest_to_the_next(stack: FinetuneStack) -> None:
    job = await training(stack)
    asking, dying = grading(stack, job), iter([False, False, True])

    def die_once() -> None:
        if next(dying, False):
            raise ConnectionError("the worker is gone")

    stack.answers.before = die_once
    task = asyncio.create_task(asyncio.to_thread(asking.rewards, [answered(text) for text in ("a", "ae", "aei")]))
    failures = 0
    while not task.done():
        try:
            await stack.round()
        except ExceptionGroup:
            failures += 1
            stack.outlive_leases()
        await asyncio.sleep(0.05)
    assert (await task, failures) == ([1, 2, 3], 1)
    assert set(stack.answers.charged.values()) == {1}


async def test_it_is_answered_while_the_job_is_to_pause(stack: FinetuneStack) -> None:
    job = await training(stack)
    await stack.pausing.pause(job.organization, job.id)
    assert await rewards(stack, grading(stack, job), ["Blue"]) == [2]


async def test_one_question_without_an_answer_is_worth_the_least_and_told_once(stack: FinetuneStack) -> None:
    job = await training(stack)
    stack.answers.fails = [NotAnswered("The prompt is too long.")]
    assert sorted(await rewards(stack, grading(stack, job), ["Blue", "Azure"])) in ([0, 2], [0, 3])
    await stack.round()
    told = [message for message in await stack.messages(job) if "grader" in message]
    assert told == ["1 of 2 questions of the grader were not answered: The prompt is too long."]


async def test_a_grader_that_nobody_answers_ends_training(stack: FinetuneStack) -> None:
    job = await training(stack)
    stack.answers.fails = [NotAnswered("You exceeded your current quota.")] * 2
    with pytest.raises(TrainingFailed, match="No question of the grader was answered: You exceeded your") as failed:
        await rewards(stack, grading(stack, job), ["Blue", "Azure"])
    assert not failed.value.error.retryable


async def test_questions_that_nobody_takes_up_end_the_attempt_which_is_tried_again(stack: FinetuneStack) -> None:
    job = await training(stack)
    with pytest.raises(TrainingFailed, match="not taken up") as failed:
        await asyncio.to_thread(grading(stack, job, patience_s=0).rewards, [answered("Blue")])
    assert failed.value.error.retryable


async def test_only_models_of_the_grader_are_asked(stack: FinetuneStack) -> None:
    """Whoever holds the training cluster spends no tenant's money on other models."""
    job = await training(stack)
    asked = model_questions(parsed_grader({**SCORE, "model": "dear-model"}), answered("Blue"))["judge"]
    folder, identity = job_folder(job.organization, job.id, 1), question_id(asked)
    name = questions_name([identity])
    await stack.blobs.write(f"{folder}/{QUESTIONS_FOLDER}/{name}", msgspec.json.encode({identity: asked}))
    await stack.round()
    assert stack.answers.asked == []
    said = msgspec.json.decode(await stack.blobs.read(f"{folder}/{ANSWERS_FOLDER}/{name}"))
    assert said == {identity: {"why_not": "The grader does not ask this model."}}


async def test_what_a_turn_leaves_waits_for_the_next(stack: FinetuneStack) -> None:
    """A job that asks much is looked at again and again: it may be cancelled meanwhile."""
    job = await training(stack)
    asked = model_questions(parsed_grader(SCORE), answered("Blue"))["judge"]
    folder, identity = job_folder(job.organization, job.id, 1), question_id(asked)
    name = questions_name([identity])
    await stack.blobs.write(f"{folder}/{QUESTIONS_FOLDER}/{name}", msgspec.json.encode({identity: asked}))

    async def stay(now: Job) -> JobProgress:
        return JobProgress(now)

    for turn_s, there in ((0.0, False), (60.0, True)):
        await TrainingQuestions(stay, stack.blobs, stack.answers, turn_s=turn_s).advance(job)
        assert await stack.blobs.exists(f"{folder}/{ANSWERS_FOLDER}/{name}") is there


async def test_a_key_that_may_not_ask_the_graders_model_creates_no_job(stack: FinetuneStack) -> None:
    who = principal()
    file = await stack.upload(who, questions(20))
    bound = msgspec.structs.replace(who, models=(AllowedModels("key", who.key, ("small-model",)),))
    method = {"type": "reinforcement", "reinforcement": {"grader": {**SCORE, "model": "judging-model"}}}
    models = FixedModels(SMALL_MODEL, msgspec.structs.replace(SMALL_MODEL, id="judging-model"))
    stack.creation = stack.new_creation(callable_models=models)
    with pytest.raises(PermissionDenied):
        await stack.create(bound, training_file=file, method=method)
    assert stack.reservations.open == {}
