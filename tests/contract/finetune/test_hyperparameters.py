"""The settings of training beside OpenAI's: shown as they were asked for, or refused by name."""

from typing import Any

import openai
import pytest

from support.finetune.fixtures import Platform
from support.finetune.rows import preference_rows, rows
from support.openai_errors import message_of
from support.openai_schema import check_openai_schema

ASKED = {
    **{"rank": 16, "alpha": 24, "target_modules": ["q_proj", "v_proj"], "use_rslora": True, "dropout": 0.05},
    **{"warmup_ratio": 0.1, "lr_scheduler_type": "cosine", "weight_decay": 0.01, "max_grad_norm": 0.3},
}
AUTO = {
    "supervised": {"n_epochs": 10, "batch_size": 2, "learning_rate_multiplier": 2.5},  # as the model's file says
    "dpo": {"n_epochs": 10, "batch_size": 2, "learning_rate_multiplier": 1.0, "beta": 0.1},
}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"rank": 17}, "rank", "must be 1 to 16"),
    ({"rank": 0}, "rank", "1 to 512"),
    ({"rank": True}, "rank", "1 to 512"),
    ({"alpha": 0}, "alpha", "1 to 65536"),
    ({"target_modules": ["lm_head"]}, "target_modules", "Only these layers may be changed: q_proj"),
    ({"target_modules": []}, "target_modules", "at least 1"),
    ({"target_modules": "all-linear"}, "target_modules", "list"),
    ({"use_dora": True}, "use_dora", "vLLM does not know them"),
    ({"packing": "auto"}, "packing", "boolean"),
    ({"group_by_length": True}, "group_by_length", "needs `packing` to be false"),
    ({"dropout": 1.0}, "dropout", "less than 1"),
    ({"warmup_ratio": -0.1}, "warmup_ratio", "greater than or equal to 0"),
    ({"lr_scheduler_type": "polynomial"}, "lr_scheduler_type", "'linear', 'cosine' or 'constant'"),
    ({"weight_decay": "0.1"}, "weight_decay", "number"),
    ({"max_grad_norm": 0}, "max_grad_norm", "greater than 0"),
    ({"early_stopping_patience": 2}, "early_stopping_patience", "validation_file"),
]


async def upload(platform: Platform, data: bytes) -> str:
    return (await platform.acme.files.create(file=("teach.jsonl", data), purpose="fine-tune")).id


@pytest.mark.parametrize("method", ["supervised", "dpo"])
async def test_what_is_asked_for_is_shown(platform: Platform, method: str) -> None:
    file = await upload(platform, rows(20) if method == "supervised" else preference_rows(20))
    whole: Any = {"type": method, method: {"hyperparameters": {**ASKED, "early_stopping_patience": 2}}}
    job = await platform.acme.fine_tuning.jobs.create(
        model="small-model", training_file=file, validation_file=file, method=whole
    )
    sent: Any = job.to_dict()
    shown = sent["method"][method]["hyperparameters"]
    assert shown == {**AUTO[method], **ASKED, "early_stopping_patience": 2}
    assert sent["hyperparameters"] == (shown if method == "supervised" else {})
    # Without them it is OpenAI's.
    sent["method"][method]["hyperparameters"] = AUTO[method]
    sent["hyperparameters"] = AUTO[method] if method == "supervised" else {}
    check_openai_schema(sent, "FineTuningJob")


async def test_the_older_place_takes_them_too(platform: Platform) -> None:
    asked: Any = {"rank": 4, "use_dora": False, "packing": False}
    job = await platform.acme.fine_tuning.jobs.create(
        model="small-model", training_file=await upload(platform, rows(20)), hyperparameters=asked
    )
    sent: Any = job.to_dict()
    # The alpha is twice the rank, where only that is asked for.
    shown = {**AUTO["supervised"], "rank": 4, "alpha": 8, "packing": False}
    assert sent["hyperparameters"] == sent["method"]["supervised"]["hyperparameters"] == shown


async def test_pairs_of_answers_are_not_packed(platform: Platform) -> None:
    file = await upload(platform, preference_rows(20))
    for packing in (False, True):
        method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"packing": packing}}}
        asked = platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, method=method)
        if not packing:
            await asked
            continue
        with pytest.raises(openai.BadRequestError) as refused:
            await asked
        assert refused.value.param == "method.dpo.hyperparameters.packing"
        assert "only rows of the method 'supervised'" in message_of(refused.value)


@pytest.mark.parametrize("method", ["supervised", "dpo"])
async def test_rows_that_are_padded_may_be_grouped_by_length(platform: Platform, method: str) -> None:
    file = await upload(platform, rows(20) if method == "supervised" else preference_rows(20))
    asked = {"group_by_length": True} | ({"packing": False} if method == "supervised" else {})
    whole: Any = {"type": method, method: {"hyperparameters": asked}}
    job = await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, method=whole)
    sent: Any = job.to_dict()
    assert sent["method"][method]["hyperparameters"].items() >= asked.items()


async def test_a_wrong_setting_is_named(platform: Platform) -> None:
    file = await upload(platform, rows(20))
    for asked, param, said in WRONG:
        for where, body in (
            ("hyperparameters", {"hyperparameters": asked}),
            (
                "method.supervised.hyperparameters",
                {"method": {"type": "supervised", "supervised": {"hyperparameters": asked}}},
            ),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, **body)
            assert refused.value.param == f"{where}.{param}"
            assert said in message_of(refused.value)
    assert platform.reservations.open == {}
