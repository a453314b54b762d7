"""Pausing and resuming as the `openai` SDK sees them."""

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from support.finetune.fixtures import Platform
from support.finetune.rows import rows
from support.openai_schema import check_openai_schema


async def _job(platform: Platform) -> FineTuningJob:
    file = await platform.acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    return await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file.id)


async def test_a_job_is_paused_and_resumed(platform: Platform) -> None:
    job = await _job(platform)
    paused = await platform.acme.fine_tuning.jobs.pause(job.id)
    assert paused == await platform.acme.fine_tuning.jobs.pause(job.id) != job
    # The enumeration of OpenAI's schema has no word for a job that was paused; all else is as it says.
    assert paused.model_dump() == job.model_dump() | {"status": "paused"}
    check_openai_schema(paused.model_dump(mode="json", exclude_unset=True) | {"status": "queued"}, "FineTuningJob")
    resumed = await platform.acme.fine_tuning.jobs.resume(job.id)
    assert resumed == await platform.acme.fine_tuning.jobs.resume(job.id) == job
    events = await platform.acme.fine_tuning.jobs.list_events(job.id)
    assert [event.message for event in events.data[:2]] == ["The job was resumed", "The fine-tuning job is paused"]


async def test_a_paused_job_is_cancelled(platform: Platform) -> None:
    job = await _job(platform)
    await platform.acme.fine_tuning.jobs.pause(job.id)
    assert (await platform.acme.fine_tuning.jobs.cancel(job.id)).status == "cancelled"
    for call, code in (("pause", "job_not_pausable"), ("resume", "job_not_paused")):
        with pytest.raises(openai.BadRequestError) as refused:
            await getattr(platform.acme.fine_tuning.jobs, call)(job.id)
        assert refused.value.code == code


async def test_another_tenants_job_does_not_exist(platform: Platform) -> None:
    job = await _job(platform)
    for call in ("pause", "resume"):
        with pytest.raises(openai.NotFoundError):
            await getattr(platform.rival.fine_tuning.jobs, call)(job.id)
    assert (await platform.acme.fine_tuning.jobs.retrieve(job.id)).status == "validating_files"


async def test_the_operator_pauses_any_job_and_lists_the_paused(platform: Platform) -> None:
    job = await _job(platform)
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer operator-secret"}) as client:
        paused = (await client.post(f"/admin/jobs/{job.id}/pause")).json()
        assert (paused["status"], paused["state"]) == ("paused", "paused")
        found = (await client.get("/admin/jobs?status=paused")).json()
        assert [one["id"] for one in found["data"]] == [job.id]
        assert (await client.post(f"/admin/jobs/{job.id}/resume")).json()["status"] == "validating_files"
