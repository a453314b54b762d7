"""Jobs, events and checkpoints are exactly OpenAI's, at every stage of a job."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from support.fakes.authenticator import FixedAuthenticator
from support.finetune.stack import FinetuneStack, principal
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.core.training import TrainingCheckpoint
from tokenyard.finetune.operator_routes import operator_job_router
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.web.errors import install_error_handlers

CHECKPOINT_METRICS = {
    **{"train_loss": 0.5, "train_mean_token_accuracy": 0.9, "valid_loss": 0.6, "valid_mean_token_accuracy": 0.8},
    **{"full_valid_loss": 0.6, "full_valid_mean_token_accuracy": 0.8},
}


@dataclass(frozen=True)
class Api:
    """Reads what must be there; answers its JSON."""

    client: httpx.AsyncClient

    async def get(self, path: str, key: str = "ty-acme") -> dict[str, Any]:
        reply = await self.client.get(path, headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


@pytest.fixture
async def api(stack: FinetuneStack) -> AsyncIterator[Api]:
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticator = FixedAuthenticator({"ty-acme": principal()})
    app.include_router(job_router(stack.jobs, stack.creation, stack.pausing, stack.catalog))
    app.include_router(operator_job_router(stack.operator, stack.jobs, stack.pausing))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield Api(client)


async def test_every_stage_of_a_job(stack: FinetuneStack, api: Api) -> None:
    done = await stack.create(metadata={"team": "blue"})
    stack.clock.advance(1)
    failed = await stack.create(principal(), method={"type": "supervised"})
    path = f"/v1/fine_tuning/jobs/{done.id}"
    seen = [await _checked_job(api, path)]
    await stack.rounds(2)
    seen.append(await _checked_job(api, path))
    run = f"{done.id}-1"
    await stack.cluster.tell(run, "Step 1")
    checkpoint = TrainingCheckpoint(
        step_number=10, epoch=1, created_at=1, path="checkpoints/step-10", metrics=CHECKPOINT_METRICS
    )
    await stack.cluster.succeed(run, tokens=12, checkpoint=checkpoint)
    await stack.rounds(3)
    seen.append(await _checked_job(api, path))
    await stack.cluster.fail(f"{failed.id}-1", "row_too_long", "Row 3 does not fit.")
    await stack.rounds(2)
    seen.append(await _checked_job(api, f"/v1/fine_tuning/jobs/{failed.id}"))

    assert [job["status"] for job in seen] == ["validating_files", "running", "succeeded", "failed"]
    assert [job["trained_tokens"] for job in seen] == [None, None, 12, 0]
    assert seen[2]["fine_tuned_model"].startswith("ft:small-model:acme:sky:")
    assert seen[3]["error"] == {"code": "row_too_long", "message": "Row 3 does not fit.", "param": None}
    assert seen[0]["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": msgspec.to_builtins(done.hyperparameters)},
    }
    await _check_lists(api, path)


async def _checked_job(api: Api, path: str) -> dict[str, Any]:
    job = await api.get(path)
    check_openai_type(job, FineTuningJob)
    check_openai_schema(job, "FineTuningJob")
    return job


async def _check_lists(api: Api, path: str) -> None:
    jobs = await api.get("/v1/fine_tuning/jobs?limit=1")
    check_openai_schema(jobs, "ListPaginatedFineTuningJobsResponse")
    assert (set(jobs), jobs["has_more"]) == ({"object", "data", "has_more"}, True)
    events = await api.get(f"{path}/events")
    for event in events["data"]:
        check_openai_type(event, FineTuningJobEvent)
        check_openai_schema(event, "FineTuningJobEvent")
    check_openai_schema(events, "ListFineTuningJobEventsResponse")
    assert {event["type"] for event in events["data"]} == {"message", "metrics"}
    checkpoints = await api.get(f"{path}/checkpoints")
    [checkpoint] = checkpoints["data"]
    check_openai_type(checkpoint, FineTuningJobCheckpoint)
    check_openai_schema(checkpoint, "FineTuningJobCheckpoint")
    check_openai_schema(checkpoints, "ListFineTuningJobCheckpointsResponse")
    assert checkpoint["metrics"] == {"step": 10, **CHECKPOINT_METRICS}


async def test_the_operator_sees_more(stack: FinetuneStack, api: Api) -> None:
    job = await stack.create()
    mine = await api.get(f"/v1/fine_tuning/jobs/{job.id}")
    theirs = await api.get(f"/admin/jobs/{job.id}", "operator-secret")
    assert {name: theirs[name] for name in mine} == mine
    assert {name: value for name, value in theirs.items() if name not in mine} == {
        "project_id": "proj_acme",
        "api_key_id": "key_acme",
        "organization_slug": "acme",
        "state": "validating_files",
        "attempt": 0,
        "waits_for": None,
        "price": job.price,
        "reserved_tokens": job.reserved_tokens,
        "reserved_amount": job.reserved_amount,
        "adapter": None,
        "internal_error": None,
    }
    events = await api.get(f"/admin/jobs/{job.id}/events?limit=1", "operator-secret")
    assert events["has_more"]
    assert events["first_id"] == events["last_id"] == events["data"][0]["id"]
