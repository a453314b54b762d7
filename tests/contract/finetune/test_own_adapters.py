"""A tenant brings its own adapter with the unchanged `openai` SDK: one upload, one call."""

import json
import pickle
import struct
import zipfile
from io import BytesIO
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import func, select

from support.finetune.adapter_files import Q_PROJ, adapter_weights, framed, lora_settings, lora_tensors, safetensors
from support.finetune.fixtures import BOUND_KEY, MAX_UPLOAD_BYTES, Platform
from support.finetune.rows import rows
from support.openai_errors import error_of, message_of
from tokenyard.files.tables import FileRow
from tokenyard.finetune.tables import JobRow

PURPOSE: Any = "adapter"
"""Not among those that the SDK's types know."""


async def upload(platform: Platform, weights: bytes, client: openai.AsyncOpenAI | None = None) -> str:
    made = await (client or platform.acme).files.create(file=("adapter_model.safetensors", weights), purpose=PURPOSE)
    assert made.purpose == PURPOSE
    return made.id


async def bring(client: openai.AsyncOpenAI, file: str, method: Any = None, **more: Any) -> FineTuningJob:
    asked: dict[str, Any] = {
        "model": "small-model",
        "training_file": file,
        "method": method or {"type": "adapter", "adapter": {"config": lora_settings()}},
    }
    return await client.fine_tuning.jobs.create(**(asked | more))


async def nothing_is_left(platform: Platform) -> None:
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(FileRow)) == 0
    assert [path for path in platform.folder.rglob("*") if path.is_file()] == []


async def test_one_upload_and_one_call(platform: Platform) -> None:
    file = await upload(platform, adapter_weights())
    job = await bring(platform.acme, file, suffix="own", metadata={"from": "elsewhere"})
    assert (job.status, job.model, job.training_file) == ("validating_files", "small-model", file)
    assert job.trained_tokens is None
    assert platform.reservations.open == {job.id: 0}
    sent = job.to_dict()
    assert sent["method"] == {
        "type": "adapter",
        "adapter": {"rank": 4, "alpha": 8, "target_modules": ["q_proj"], "use_rslora": False},
    }
    assert sent["hyperparameters"] == {}
    assert await platform.acme.fine_tuning.jobs.retrieve(job.id) == job
    assert [found.id async for found in await platform.acme.fine_tuning.jobs.list()] == [job.id]
    assert (await platform.acme.fine_tuning.jobs.cancel(job.id)).status == "cancelled"
    events = await platform.acme.fine_tuning.jobs.list_events(job.id)
    assert f"Validating adapter file: {file}" in [event.message for event in events.data]


async def test_the_same_call_again_under_its_key_is_the_same_job(platform: Platform) -> None:
    file = await upload(platform, adapter_weights())
    key = {"Idempotency-Key": "once"}
    made = [await bring(platform.acme, file, extra_headers=key) for _ in range(2)]
    assert made[0].id == made[1].id
    method = {"type": "adapter", "adapter": {"config": lora_settings(lora_alpha=16)}}
    with pytest.raises(openai.BadRequestError) as other:
        await bring(platform.acme, file, method, extra_headers=key)
    assert other.value.code == "idempotency_key_reused"


def zipped() -> bytes:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../../../etc/cron.d/x", b"0" * 1_000_000)
    return archive.getvalue()


HUGE = {"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 1 << 62]}
NAN = {name: (shape, b"\x00\x00\xc0\x7f" * (len(values) // 4)) for name, (shape, values) in lora_tensors().items()}
WIDE = {name: (shape, values * 2) for name, (shape, values) in lora_tensors().items()}
ZERO = {name: (shape, bytes(len(values))) for name, (shape, values) in lora_tensors().items()}
HOSTILE = {
    "a pickle": (pickle.dumps({"weight": [1]}), "adapter_damaged"),
    "a zip with a path out": (zipped(), "adapter_damaged"),
    "a header without end": (struct.pack("<Q", 1 << 63) + b"{}", "adapter_damaged"),
    "a deep header": (framed(b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "adapter_damaged"),
    "a header of many names": (framed(json.dumps({f"x{n}": {} for n in range(50_000)}).encode()), "adapter_damaged"),
    "a huge shape": (safetensors(lora_tensors(), header={Q_PROJ.format(0, "A"): HUGE}), "adapter_damaged"),
    "no numbers": (safetensors(NAN), "not_finite"),
    "zeros": (safetensors(ZERO), "all_zero"),
    "a rank that no engine takes": (adapter_weights(rank=513, layers=1), "rank_not_allowed"),
    "another type": (safetensors(WIDE, dtype="F64"), "dtype_not_allowed"),
    "whole layers": (safetensors({"model.embed_tokens.weight": ((4, 4), bytes(64))}), "module_not_allowed"),
    "a path as a name": (safetensors({"../../x": ((4, 4), bytes(64))}), "module_not_allowed"),
    "half of it": (adapter_weights()[:-100], "adapter_damaged"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_file_is_refused_and_nothing_of_it_is_kept(platform: Platform, what: str) -> None:
    weights, code = HOSTILE[what]
    with pytest.raises(openai.BadRequestError) as refused:
        await upload(platform, weights)
    assert (refused.value.code, refused.value.param) == (code, "file")
    assert set(error_of(refused.value)) == {"message", "type", "param", "code"}
    await nothing_is_left(platform)


async def test_a_file_over_the_size_of_uploads_is_refused(platform: Platform) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await upload(platform, bytes(MAX_UPLOAD_BYTES + 1))
    assert refused.value.status_code == 413
    await nothing_is_left(platform)


async def test_only_safetensors_files_are_taken(platform: Platform) -> None:
    for name in ("adapter_model.bin", "adapter.zip", "safetensors"):
        with pytest.raises(openai.BadRequestError) as refused:
            await platform.acme.files.create(file=(name, adapter_weights()), purpose=PURPOSE)
        assert ".safetensors" in message_of(refused.value)
    await nothing_is_left(platform)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"r": 17}, "rank_not_allowed"),
        ({"target_modules": ["lm_head"]}, "module_not_allowed"),
        ({"target_modules": "all-linear"}, "module_not_allowed"),
        ({"use_dora": True}, "adapter_unsupported"),
        ({"init_lora_weights": "pissa"}, "adapter_unsupported"),
        ({"peft_type": "IA3"}, "adapter_unsupported"),
        ({"lora_alpha": 1e300}, "alpha_not_allowed"),
        ({"lora_alpha": None}, "alpha_not_allowed"),
    ],
)
async def test_a_config_that_is_not_served_is_named(platform: Platform, change: dict[str, Any], code: str) -> None:
    file = await upload(platform, adapter_weights())
    method = {"type": "adapter", "adapter": {"config": {**lora_settings(), **change}}}
    with pytest.raises(openai.BadRequestError) as refused:
        await bring(platform.acme, file, method)
    assert (refused.value.code, refused.value.param) == (code, "method.adapter.config")
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(JobRow)) == 0
    assert platform.reservations.open == {}


@pytest.mark.parametrize("depth", [50, 900, 100_000])
async def test_a_deep_config_breaks_nothing(platform: Platform, depth: int) -> None:
    file = await upload(platform, adapter_weights())
    deep = '{"a":' * depth + "1" + "}" * depth
    body = f'''{{"model": "small-model", "training_file": "{file}",
               "method": {{"type": "adapter", "adapter": {{"config": {deep}}}}}}}'''
    headers = {"authorization": "Bearer ty-acme", "content-type": "application/json", "idempotency-key": "deep"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{platform.url}/v1/fine_tuning/jobs", content=body, headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_another_tenant_s_file_is_as_one_that_does_not_exist(platform: Platform) -> None:
    """I7."""
    file = await upload(platform, adapter_weights())
    none = f"{file[:-2]}00"
    told = []
    for asked in (file, none):
        with pytest.raises(openai.BadRequestError) as refused:
            await bring(platform.rival, asked)
        told.append(json.dumps(error_of(refused.value)).replace(asked, "it"))
    assert told[0] == told[1]
    with pytest.raises(openai.NotFoundError):
        await platform.rival.files.retrieve(file)


async def test_files_of_other_purposes_are_not_taken_and_adapters_are_no_data(platform: Platform) -> None:
    adapter = await upload(platform, adapter_weights())
    data = (await platform.acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")).id
    text = (await platform.acme.files.create(file=("a.safetensors", adapter_weights()), purpose="user_data")).id
    for file in (data, text):
        with pytest.raises(openai.BadRequestError) as refused:
            await bring(platform.acme, file)
        assert (refused.value.param, "purpose 'adapter'" in message_of(refused.value)) == ("training_file", True)
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=adapter)
    assert "purpose 'fine-tune'" in message_of(refused.value)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"method": {"type": "adapter"}}, "method.adapter"),
        ({"method": {"type": "supervised", "adapter": {"config": lora_settings()}}}, "method"),
        ({"method": {"type": "adapter", "adapter": {"config": lora_settings()}, "supervised": {}}}, "method"),
        ({"method": {"type": "adapter", "adapter": {"config": lora_settings(), "trust": 1}}}, None),
        ({"hyperparameters": {"n_epochs": 1}}, "hyperparameters"),
        ({"validation_file": "file-1"}, "validation_file"),
        ({"model": "embedder"}, "model"),
        ({"suffix": "../x"}, "suffix"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    platform: Platform, request_: dict[str, Any], param: str | None
) -> None:
    file = await upload(platform, adapter_weights())
    with pytest.raises(openai.BadRequestError) as refused:
        await bring(platform.acme, file, **request_)
    assert param is None or refused.value.param == param


async def test_a_key_that_may_not_use_the_base_brings_nothing_over_it(platform: Platform) -> None:
    file = await upload(platform, adapter_weights())
    with pytest.raises(openai.PermissionDeniedError):
        await bring(platform.acme.with_options(api_key=BOUND_KEY), file)


async def test_without_a_price_for_fine_tunes_there_is_no_model(platform: Platform) -> None:
    file = await upload(platform, adapter_weights())
    with pytest.raises(openai.APIStatusError) as refused:
        await bring(platform.acme, file, model="unpriced")
    assert refused.value.status_code in (400, 404)
