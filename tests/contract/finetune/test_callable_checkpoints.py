"""`callable_checkpoints` of a job, sent with the unchanged `openai` SDK."""

from typing import Any

import openai
import pytest

from support.finetune.adapter_files import adapter_weights, lora_settings
from support.finetune.fixtures import Platform
from support.finetune.rows import rows


async def create(platform: Platform, callable_checkpoints: Any) -> dict[str, Any]:
    file = await platform.acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    job = await platform.acme.fine_tuning.jobs.create(
        model="small-model", training_file=file.id, extra_body={"callable_checkpoints": callable_checkpoints}
    )
    return (await platform.acme.fine_tuning.jobs.retrieve(job.id)).to_dict()


async def test_a_job_shows_what_was_asked_for_and_openai_s_job_where_nothing_was(platform: Platform) -> None:
    assert (await create(platform, 3))["callable_checkpoints"] == 3
    assert "callable_checkpoints" not in await create(platform, 0)
    assert "callable_checkpoints" not in await create(platform, None)


@pytest.mark.parametrize("asked", [-1, 4, 2**70, 1.5, True, "2", []])
async def test_a_number_out_of_bounds_is_refused_by_name(platform: Platform, asked: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await create(platform, asked)
    assert refused.value.param == "callable_checkpoints"


async def test_what_is_brought_has_none(platform: Platform) -> None:
    purpose: Any = "adapter"
    file = await platform.acme.files.create(file=("adapter_model.safetensors", adapter_weights()), purpose=purpose)
    method: Any = {"type": "adapter", "adapter": {"config": lora_settings()}}
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.fine_tuning.jobs.create(
            model="small-model", training_file=file.id, method=method, extra_body={"callable_checkpoints": 1}
        )
    assert refused.value.param == "callable_checkpoints"
