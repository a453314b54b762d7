"""Preferences as the `openai` SDK sends them, before any of them is learnt."""

from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from support.finetune.fixtures import Platform
from support.finetune.ports import TRAINING_RATE
from support.finetune.rows import preference_rows, rows
from support.openai_errors import message_of
from support.openai_schema import check_openai_schema, check_openai_type

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"dpo": {"hyperparameters": {"beta": 0}}}, "method.dpo.hyperparameters.beta", "above 0, up to 2"),
    ({"dpo": {"hyperparameters": {"beta": 2.5}}}, "method.dpo.hyperparameters.beta", "above 0, up to 2"),
    ({"dpo": {"hyperparameters": {"beta": True}}}, "method.dpo.hyperparameters.beta", "above 0, up to 2"),
    ({"dpo": {"hyperparameters": {"n_epochs": 51}}}, "method.dpo.hyperparameters.n_epochs", "1 to 50"),
    ({"dpo": {"hyperparameters": {"gamma": 1}}}, "method.dpo.hyperparameters.gamma", ""),
    ({"dpo": {"loss": "hinge"}}, "method.dpo.loss", ""),
    ({"dpo": {}, "supervised": {}}, "method", "Only method.dpo"),
    ({"type": "supervised", "dpo": {}}, "method", "Only method.supervised"),
    ({"type": "supervised"}, "training_file", "is for the method 'dpo'"),
]


async def upload(client: openai.AsyncOpenAI, data: bytes) -> str:
    return (await client.files.create(file=("teach.jsonl", data), purpose="fine-tune")).id


async def create(platform: Platform, file: str, method: Any) -> FineTuningJob:
    whole: Any = {"type": "dpo", **method}
    return await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, method=whole)


async def test_the_worst_case_holds_both_answers_each_with_its_prompt(platform: Platform) -> None:
    file = await upload(platform.acme, preference_rows(20))
    job = await create(platform, file, {"dpo": {"hyperparameters": {"n_epochs": 3}}})
    text = 2 * len("Which colour is the sky?") + len("Blue.") + len("Who knows?")
    tokens = 3 * 20 * (text + 2 * 8 + 4 * 8)
    assert platform.reservations.open == {job.id: tokens * TRAINING_RATE}


async def test_the_job_says_what_it_is_set_to(platform: Platform) -> None:
    file = await upload(platform.acme, preference_rows(20))
    plain = await create(platform, file, {})
    asked = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 3.0, "beta": 0.5}
    set_up = await create(platform, file, {"dpo": {"hyperparameters": asked}})
    auto = {"n_epochs": 10, "batch_size": 2, "learning_rate_multiplier": 1.0, "beta": 0.1}
    for job, expected in ((plain, auto), (set_up, asked)):
        sent = job.to_dict()
        assert sent["method"] == {"type": "dpo", "dpo": {"hyperparameters": expected}}
        assert sent["hyperparameters"] == {}
        check_openai_type(sent, FineTuningJob)
        check_openai_schema(sent, "FineTuningJob")
        assert await platform.acme.fine_tuning.jobs.retrieve(job.id) == job


async def test_a_wrong_setting_is_named(platform: Platform) -> None:
    file = await upload(platform.acme, preference_rows(20))
    for method, param, said in WRONG:
        with pytest.raises(openai.BadRequestError) as refused:
            await create(platform, file, method)
        assert refused.value.param == param
        assert said in message_of(refused.value)
    assert platform.reservations.open == {}


async def test_both_files_must_hold_preferences(platform: Platform) -> None:
    pairs, chats = await upload(platform.acme, preference_rows(2)), await upload(platform.acme, rows(2))
    jobs = platform.acme.fine_tuning.jobs
    for training, validation, param in ((chats, pairs, "training_file"), (pairs, chats, "validation_file")):
        with pytest.raises(openai.BadRequestError) as refused:
            await jobs.create(
                model="small-model", training_file=training, validation_file=validation, method={"type": "dpo"}
            )
        assert (refused.value.param, "is for the method 'supervised'" in message_of(refused.value)) == (param, True)


async def test_a_wrong_row_is_named_when_it_is_uploaded(platform: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await upload(platform.acme, preference_rows(1) + preference_rows(1, worse="Blue."))
    assert "line 2: both outputs are the same" in message_of(refused.value)
