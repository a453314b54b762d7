"""What a job leaves, over HTTP: its result file and its adapter by the `openai` SDK, and what others see of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from support.fakes.authenticator import FixedAuthenticator
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from support.servers.asgi import running
from tokenyard.core.ids import JobId
from tokenyard.files.tenant_routes import file_router
from tokenyard.finetune.results.tenant_routes import adapter_router
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.web.errors import install_error_handlers


@dataclass(frozen=True)
class Clients:
    acme: AsyncOpenAI
    rival: AsyncOpenAI


def _app(stack: FinetuneStack, *, downloads: bool = True) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticator = FixedAuthenticator({f"ty-{name}": principal(name) for name in ("acme", "rival")})
    app.include_router(file_router(stack.files, stack.uploads(max_bytes=1_000_000), stack.blobs))
    app.include_router(job_router(stack.jobs, stack.creation, stack.pausing, stack.catalog))
    app.include_router(adapter_router(stack.jobs, stack.catalog, stack.blobs, allowed=downloads))
    return app


@pytest.fixture
async def clients(stack: FinetuneStack) -> AsyncIterator[Clients]:
    async with running(_app(stack)) as url:
        base_url = f"{url}/v1"
        async with (
            AsyncOpenAI(api_key="ty-acme", base_url=base_url, max_retries=0) as acme,
            AsyncOpenAI(api_key="ty-rival", base_url=base_url, max_retries=0) as rival,
        ):
            yield Clients(acme, rival)


async def _trained(stack: FinetuneStack, acme: AsyncOpenAI) -> str:
    file = await acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    job = await acme.fine_tuning.jobs.create(model="small-model", training_file=file.id)
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1", "Step 2", total=2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=10)
    await stack.rounds(3)
    return job.id


async def test_the_result_file_is_a_file_like_others(stack: FinetuneStack, clients: Clients) -> None:
    ended = await clients.acme.fine_tuning.jobs.retrieve(await _trained(stack, clients.acme))
    [result] = ended.result_files
    stored = await clients.acme.files.retrieve(result)
    assert (stored.purpose, stored.status) == ("fine-tune-results", "processed")
    lines = (await clients.acme.files.content(result)).text.splitlines()
    assert lines[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    found = [file.id async for file in clients.acme.files.list(purpose="fine-tune-results")]
    assert found == [result]
    with pytest.raises(openai.NotFoundError):
        await clients.rival.files.content(result)
    assert (await clients.acme.files.delete(result)).deleted
    with pytest.raises(openai.NotFoundError):
        await clients.acme.files.content(result)


async def test_the_owner_takes_the_adapter_along(stack: FinetuneStack, clients: Clients) -> None:
    job = await _trained(stack, clients.acme)
    path = f"/fine_tuning/jobs/{job}/adapter"
    listed = (await clients.acme.get(path, cast_to=httpx.Response)).json()
    assert [file["id"] for file in listed["data"]] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in listed["data"]:
        content = (await clients.acme.get(f"{path}/{file['id']}", cast_to=httpx.Response)).content
        assert len(content) == file["bytes"] > 0
    for wrong in ("manifest.json", "..%2Fmanifest.json"):
        with pytest.raises(openai.NotFoundError):
            await clients.acme.get(f"{path}/{wrong}", cast_to=httpx.Response)
    for theirs in (path, f"{path}/adapter_config.json"):
        with pytest.raises(openai.NotFoundError):
            await clients.rival.get(theirs, cast_to=httpx.Response)
    made = (await stack.job(JobId(job))).adapter
    assert made is not None
    await stack.catalog.fail(principal().organization, made, "deleted")
    with pytest.raises(openai.NotFoundError):
        await clients.acme.get(path, cast_to=httpx.Response)


async def test_a_job_without_a_model_has_no_adapter(stack: FinetuneStack, clients: Clients) -> None:
    job = await stack.create()
    with pytest.raises(openai.NotFoundError):
        await clients.acme.get(f"/fine_tuning/jobs/{job.id}/adapter", cast_to=httpx.Response)


async def test_an_operator_may_forbid_it(stack: FinetuneStack, clients: Clients) -> None:
    job = await _trained(stack, clients.acme)
    async with running(_app(stack, downloads=False)) as url:
        keeping = clients.acme.with_options(base_url=f"{url}/v1")
        for path in ("adapter", "adapter/adapter_config.json"):
            with pytest.raises(openai.PermissionDeniedError) as refused:
                await keeping.get(f"/fine_tuning/jobs/{job}/{path}", cast_to=httpx.Response)
            assert refused.value.code == "adapter_download_forbidden"


async def test_an_estimate_over_http(clients: Clients) -> None:
    file = await clients.acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    body = {"model": "small-model", "training_file": file.id}
    known = (await clients.acme.post("/fine_tuning/jobs/estimate", body=body, cast_to=httpx.Response)).json()
    assert known["object"] == "fine_tuning.job.estimate"
    job = await clients.acme.fine_tuning.jobs.create(**body)  # type: ignore[arg-type]
    assert known["hyperparameters"]["n_epochs"] == job.hyperparameters.n_epochs
    with pytest.raises(openai.BadRequestError):
        await clients.acme.post("/fine_tuning/jobs/estimate", body={**body, "sed": 1}, cast_to=httpx.Response)
    with pytest.raises(openai.BadRequestError):
        await clients.rival.post("/fine_tuning/jobs/estimate", body=body, cast_to=httpx.Response)
