"""Base and tuned model answer the same questions once the job has succeeded; whatever comes of it, it has."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.finetune.rows import preference_rows, rows
from support.finetune.stack import POLICY, FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.evaluation.questions import NotAnswered, Question
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.finetune.views import JobView
from tokenyard.storage.database import Database

METRICS = {"base_valid_loss": 2.0, "valid_loss": 1.0}


async def created(stack: FinetuneStack, held_out: bytes | None = None, **evaluation: Any) -> Job:
    """Create a job whose `evaluation` says so much, and train it."""
    file = await stack.upload(principal(), rows(30) if held_out is None else held_out)
    job = await stack.create(validation_file=file, evaluation=evaluation)
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=400, metrics=METRICS)
    return job


async def evaluated(stack: FinetuneStack, held_out: bytes | None = None, **evaluation: Any) -> tuple[Job, Any]:
    job = await created(stack, held_out, **evaluation)
    await stack.rounds(3)
    return await ended(stack, job)


async def ended(stack: FinetuneStack, job: Job) -> tuple[Job, Any]:
    """Return the ended job, and what its evaluation says."""
    found = await stack.job(job.id)
    assert (found.state, found.status) == (JobState.SUCCEEDED, "succeeded")
    assert found.evaluation_file in JobView.of(found).result_files
    stored = await stack.files.get(job.organization, FileId(found.evaluation_file or ""))
    assert (stored.purpose, stored.filename) == ("fine-tune-results", "evaluation.json")
    return found, msgspec.json.decode(await stack.blobs.read(stack.files.path(job.organization, stored.id)))


def tuned_knows(model: str, question: Question) -> str:
    return question.expected if model.startswith("ft:") else "It is grey."


async def test_both_models_answer_held_out_rows(stack: FinetuneStack) -> None:
    stack.answers.says = tuned_knows
    job, found = await evaluated(stack, rows=5)
    answers = found["answers"]
    assert (answers["asked"], answers["reason"], len(answers["samples"])) == (5, None, 5)
    assert (answers["base"]["exact_match"], answers["tuned"]["exact_match"]) == (0, 1)
    assert answers["samples"][0] == {
        "asked": {"messages": [{"role": "user", "content": "Which colour is the sky?"}]},
        "expected": "Blue.",
        "base": "It is grey.",
        "tuned": "Blue.",
        "cut": [],
    }
    assert found["held_out"]["tuned"]["loss"] == 1.0
    assert found["general"] is None
    assert {(model, key) for model, _, key in stack.answers.asked} == {
        ("small-model", job.key),
        (str(job.model_name), job.key),
    }
    assert JobView.of(job).model_dump()["evaluation"] == {"rows": 5, "general": False}
    assert any("exact match 1.00 against 0.00" in message for message in await stack.messages(job))


async def test_general_questions_say_what_was_forgotten(stack: FinetuneStack) -> None:
    def says(model: str, question: Question) -> str:
        if model.startswith("ft:") and question.expected in ("Paris", "honey"):
            return "Blue."
        return f"It's {question.expected.partition('|')[0].lower()}!"

    stack.answers.says = says
    job = await stack.create(evaluation={"general": True})
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=400)
    await stack.rounds(3)
    job, found = await ended(stack, job)
    general = found["general"]
    assert (general["answered"], general["base_right"], general["tuned_right"]) == (30, 30, 28)
    assert [sample["expected"] for sample in general["forgotten"]] == ["Paris", "honey"]
    assert (found["answers"], found["held_out"]) == (None, None)
    assert any("2 were forgotten" in message for message in await stack.messages(job))


async def test_nobody_waits_for_it(stack: FinetuneStack) -> None:
    """Before anything is asked, the job has succeeded and is charged, and its model is live and named."""
    seen = []
    job = await created(stack, rows=1)

    def look() -> None:
        seen.append(stack.catalog.lives.copy())

    stack.answers.before = look
    await stack.worker[1].step()  # published
    while (await stack.job(job.id)).state is not JobState.EVALUATING and not seen:
        await stack.worker[1].step()
        stack.clock.advance(1)
    assert len(await stack.charges()) == 1
    shown = JobView.of(msgspec.structs.replace(await stack.job(job.id), state=JobState.EVALUATING))
    assert (shown.status, shown.fine_tuned_model is not None) == ("succeeded", True)
    assert all(life[-1] == "live" for lives in seen for life in lives.values())
    with pytest.raises(InvalidRequest):
        await stack.jobs.cancel(job.organization, job.id)


async def test_a_worker_that_dies_charges_nothing_twice(stack: FinetuneStack) -> None:
    job = await created(stack, rows=4)
    count = 0

    class Killed(BaseException):
        pass

    def die() -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Killed

    stack.answers.before = die
    for _ in range(6):
        try:
            await stack.round()
        except BaseException as error:
            if not isinstance(error, BaseExceptionGroup | Killed):
                raise
            stack.outlive_leases()
            stack.worker = stack.new_worker()
    _, found = await ended(stack, job)
    assert (found["answers"]["tuned"]["rows"], count > 8) == (4, True)
    assert set(stack.answers.charged.values()) == {1}
    assert len(stack.answers.charged) == 8
    assert len(await stack.charges()) == 1


@pytest.mark.parametrize(
    "why", ["You exceeded your current quota.", "The API key in whose name models are asked was deleted."]
)
async def test_models_that_do_not_answer_change_nothing(stack: FinetuneStack, why: str) -> None:
    stack.answers.fails = [NotAnswered(why)] * 100
    job, found = await evaluated(stack, rows=3)
    answers = found["answers"]
    assert (answers["asked"], answers["base"], answers["tuned"], answers["samples"]) == (3, None, None, [])
    assert answers["reason"] == why
    assert f"Not all held-out rows were answered: {why}" in await stack.messages(job)


async def test_what_may_pass_is_asked_again(stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenyard.finetune.steps.evaluating.AGAIN_S", 0.01)
    stack.answers.fails = [NotAnswered("The model is not known.", passing=True)] * 3
    _, found = await evaluated(stack, rows=2)
    assert (found["answers"]["reason"], found["answers"]["base"]["rows"]) == (None, 2)


async def test_its_time_is_bounded(database: Database, tmp_path: Path) -> None:
    policy = dataclasses.replace(POLICY, evaluation_timeout_s=0.3)
    stack = FinetuneStack(database, tmp_path, policy=policy)
    stack.answers.fails = [NotAnswered("The gateway does not answer.", passing=True)] * 1_000
    _, found = await evaluated(stack, rows=2)
    assert found["answers"]["reason"] == "The models did not answer in time."


async def test_rows_of_every_kind(stack: FinetuneStack) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools = [{"type": "function", "function": {"name": "f"}}]
    chats = [
        {
            "messages": [{"role": "user", "content": "Call."}, {"role": "assistant", "tool_calls": [call]}],
            "tools": tools,
        },
        {
            "messages": [
                {"role": "user", "content": "Call."},
                {"role": "assistant", "tool_calls": [call], "weight": 0},
                {"role": "tool", "content": "4", "tool_call_id": "c"},
                {"role": "assistant", "content": "Four."},
            ],
            "tools": tools,
        },
    ]
    _, found = await evaluated(stack, "".join(json.dumps(row) + "\n" for row in chats).encode(), rows=5)
    [sample] = found["answers"]["samples"]
    assert sample["expected"] == "Four."
    assert [message["role"] for message in sample["asked"]["messages"]] == ["user", "assistant", "tool"]
    assert "weight" not in sample["asked"]["messages"][1]
    assert sample["asked"]["tools"] == tools


async def test_without_answers_in_text_there_is_nothing_to_ask(stack: FinetuneStack) -> None:
    _, found = await evaluated(stack, b'{"text": "Once upon a time."}\n', rows=5)
    assert found["answers"]["reason"] == "No row of the validation file expects an answer in text."
    assert stack.answers.asked == []


async def test_preferred_answers_are_expected(stack: FinetuneStack) -> None:
    training = await stack.upload(principal(), preference_rows(12))
    held_out = await stack.upload(principal(), preference_rows(3))
    job = await stack.create(
        training_file=training, validation_file=held_out, method={"type": "dpo"}, evaluation={"rows": 2}
    )
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=400, metrics=METRICS)
    await stack.rounds(3)
    _, found = await ended(stack, job)
    assert [sample["expected"] for sample in found["answers"]["samples"]] == ["Blue.", "Blue."]


@pytest.mark.parametrize(
    ("evaluation", "param"),
    [({"rows": 3}, "evaluation.rows"), ({}, "evaluation"), ({"general": False}, "evaluation")],
)
async def test_what_there_is_nothing_to_ask_of_is_refused(
    stack: FinetuneStack, evaluation: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await stack.create(evaluation=evaluation)
    assert refused.value.param == param


@pytest.mark.parametrize("evaluation", [{"rows": 21}, {"rows": -1}, {"rows": "3"}, {"general": 1}, {"more": 1}])
async def test_wrong_settings_are_refused(stack: FinetuneStack, evaluation: dict[str, object]) -> None:
    file = await stack.upload(principal(), rows(3))
    with pytest.raises(ValueError, match="evaluation"):
        await stack.create(validation_file=file, evaluation=evaluation)
