"""Reinforcement fine-tuning as the `openai` SDK asks for it, before anything is answered."""

from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from contract.finetune.test_graders import CHECK, SCORE
from support.finetune.fixtures import Platform
from support.finetune.ports import TRAINING_RATE
from support.finetune.rows import questions, rows
from support.finetune.stack import FinetuneStack, principal
from support.openai_errors import message_of
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.core.datasets.checking import check_id
from tokenyard.core.graders.shapes import parsed_grader
from tokenyard.core.training import submission_id

TEXT = len("Which colour is the sky?")
PROMPT = TEXT + 8 + 2 * 8
"""The bound of a row: its text, its template, its message and the opening of the answer."""


async def upload(client: openai.AsyncOpenAI, data: bytes) -> str:
    return (await client.files.create(file=("teach.jsonl", data), purpose="fine-tune")).id


async def create(platform: Platform, file: str, grader: Any = CHECK, **hyperparameters: Any) -> FineTuningJob:
    method: Any = {
        "type": "reinforcement",
        "reinforcement": {"grader": grader, "hyperparameters": hyperparameters},
    }
    return await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, method=method)


async def test_the_worst_case_is_every_answer_at_full_length(platform: Platform) -> None:
    file = await upload(platform.acme, questions(20))
    job = await create(platform, file, n_epochs=3, num_generations=4, max_completion_length=50)
    assert platform.reservations.open == {job.id: 3 * 20 * 4 * (PROMPT + 50) * TRAINING_RATE}


async def test_the_job_says_what_it_is_set_to(platform: Platform) -> None:
    file = await upload(platform.acme, questions(20))
    plain = await create(platform, file)
    asked = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 3.0, "compute_multiplier": 0.5, "beta": 0.1}
    set_up = await create(platform, file, temperature=0.7, **asked)
    auto = {"n_epochs": 10, "batch_size": 2, "learning_rate_multiplier": 1.0}
    ours = {"num_generations": 8, "max_completion_length": 256, "temperature": 1.0, "beta": 0.0}
    del asked["compute_multiplier"]
    for job, expected in ((plain, auto | ours), (set_up, ours | asked | {"num_generations": 4, "temperature": 0.7})):
        sent = job.to_dict()
        assert sent["method"] == {
            "type": "reinforcement",
            "reinforcement": {"grader": CHECK, "hyperparameters": expected},
        }
        assert sent["hyperparameters"] == {}
        check_openai_type(without_ours(sent), FineTuningJob)
        check_openai_schema(without_ours(sent), "FineTuningJob")
        assert await platform.acme.fine_tuning.jobs.retrieve(job.id) == job


def without_ours(sent: dict[str, Any]) -> dict[str, Any]:
    """Leave out the four hyperparameters that OpenAI does not have."""
    settings = sent["method"]["reinforcement"]
    known = {name: settings["hyperparameters"][name] for name in ("n_epochs", "batch_size", "learning_rate_multiplier")}
    return {**sent, "method": {"type": "reinforcement", "reinforcement": {**settings, "hyperparameters": known}}}


WRONG: list[tuple[Any, dict[str, Any], str, str]] = [
    (CHECK, {"num_generations": 1}, "hyperparameters.num_generations", "greater than or equal to 2"),
    (CHECK, {"num_generations": 81}, "hyperparameters.num_generations", "less than or equal to 80"),
    (CHECK, {"max_completion_length": 4097}, "hyperparameters.max_completion_length", "4096"),
    (CHECK, {"temperature": 0}, "hyperparameters.temperature", "greater than 0"),
    (CHECK, {"beta": -1}, "hyperparameters.beta", "greater than or equal to 0"),
    (CHECK, {"compute_multiplier": 11}, "hyperparameters.compute_multiplier", "up to 10"),
    (CHECK, {"compute_multiplier": 2, "num_generations": 4}, "hyperparameters.num_generations", "either"),
    (CHECK, {"eval_interval": 5}, "hyperparameters.eval_interval", "after each epoch"),
    (CHECK, {"eval_samples": 5}, "hyperparameters.eval_samples", "likeliest answer"),
    (CHECK, {"reasoning_effort": "low"}, "hyperparameters.reasoning_effort", "cannot be set"),
    (CHECK, {"packing": True}, "hyperparameters.packing", "not packed"),
    ({**CHECK, "operation": "is"}, {}, "grader.operation", "Invalid enum value"),
    ({**SCORE, "model": "embedder"}, {}, "grader.model", "does not answer in text"),
]


async def test_a_wrong_setting_is_named(platform: Platform) -> None:
    file = await upload(platform.acme, questions(20))
    for grader, asked, param, said in WRONG:
        with pytest.raises(openai.BadRequestError) as refused:
            await create(platform, file, grader, **asked)
        assert refused.value.param == f"method.reinforcement.{param}"
        assert said in message_of(refused.value)
    with pytest.raises(openai.BadRequestError) as bare:
        await platform.acme.fine_tuning.jobs.create(
            model="small-model", training_file=file, method={"type": "reinforcement"}
        )
    assert bare.value.param == "method.reinforcement"
    assert platform.reservations.open == {}


async def test_both_files_must_ask_for_answers(platform: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await create(platform, await upload(platform.acme, rows(2)))
    assert (refused.value.param, "is for the method 'supervised'" in message_of(refused.value)) == (
        "training_file",
        True,
    )


async def test_training_and_the_check_of_files_are_given_the_grader(stack: FinetuneStack) -> None:
    file = await stack.upload(principal(), questions(20))
    method = {
        "type": "reinforcement",
        "reinforcement": {"grader": CHECK, "hyperparameters": {"num_generations": 4, "max_completion_length": 50}},
    }
    job = await stack.create(training_file=file, method=method)
    await stack.rounds(2)
    for spec in (stack.cluster.checks[check_id(job.id, 1)], stack.cluster.specs[submission_id(job.id, 1)]):
        assert spec.method == "reinforcement"
        assert spec.hyperparameters is not None
        assert spec.hyperparameters.grader == parsed_grader(CHECK)
    after = await stack.job(job.id)
    assert after.hyperparameters is not None
    assert after.reserved_tokens == after.hyperparameters.n_epochs * 4 * 20 * (TEXT + 50), "as it was counted"
