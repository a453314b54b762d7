"""The stock `ray job` commands against the gateway's own part of Ray's Jobs API."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from support.fakes.authenticator import FixedAuthenticator
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from support.servers.asgi import running
from tokenyard.core.ids import JobId
from tokenyard.finetune.ray_jobs.tenant_routes import ray_jobs_router
from tokenyard.web.errors import install_error_handlers

pytestmark = pytest.mark.timeout(300)
RAY = Path(sys.executable).parent / "ray"


@pytest.fixture
async def url(stack: FinetuneStack) -> AsyncIterator[str]:
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticator = FixedAuthenticator({f"ty-{name}": principal(name) for name in ("acme", "rival")})
    app.include_router(ray_jobs_router(stack.jobs, stack.creation))
    async with running(app) as address:
        yield address


async def ray_job(url: str, command: str, *arguments: str, key: str = "ty-acme") -> tuple[int, str]:
    """Run `ray job COMMAND`; return its exit status and all that it said."""
    headers = json.dumps({"Authorization": f"Bearer {key}"})
    process = await asyncio.create_subprocess_exec(
        *(str(RAY), "job", command, "--address", url, "--headers", headers, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "RAY_AUTH_MODE": "disabled", "COLUMNS": "200"},
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_submit_status_logs_list_and_stop(stack: FinetuneStack, url: str) -> None:
    pytest.importorskip("ray")
    file = await stack.upload(principal(), rows(20))
    command = ("--", "tokenyard-train", "--model", "small-model", "--training-file", file, "--n-epochs", "2")
    for _ in range(2):
        code, said = await ray_job(url, "submit", "--no-wait", "--submission-id", "mine-1", *command)
        assert (code, "mine-1" in said) == (0, True), said
    [job] = await stack.jobs.page(principal().organization, limit=9, after=None, metadata=None)
    assert job.hyperparameters is not None
    assert job.hyperparameters.n_epochs == 2
    code, said = await ray_job(url, "status", "mine-1")
    assert (code, "PENDING" in said) == (0, True), said
    await stack.rounds(2)
    code, said = await ray_job(url, "logs", "mine-1")
    assert (code, "Fine-tuning job started" in said) == (0, True), said
    code, said = await ray_job(url, "list")
    assert (code, "mine-1" in said) == (0, True), said
    code, said = await ray_job(url, "status", "mine-1", key="ty-rival")
    assert (code != 0, "404" in said) == (True, True), said
    code, said = await ray_job(url, "stop", "--no-wait", "mine-1")
    assert code == 0, said
    assert (await stack.jobs.get(principal().organization, JobId(job.id))).status == "cancelled"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"entrypoint": "python -c 'print(1)'"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m --training-file f; id"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m --training-file f --organization rival"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m --training-file f --base-url http://elsewhere"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m --training-file f --n-epochs many"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train --model m --training-file f --n-epochs 5000"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train 'unclosed"}, "entrypoint"),
        ({"entrypoint": "tokenyard-train", "runtime_env": {"env_vars": {"A": "b"}}}, "runtime_env"),
        ({"entrypoint": "tokenyard-train", "runtime_env": {"working_dir": "gcs://x.zip"}}, "runtime_env"),
        ({"entrypoint": "tokenyard-train", "entrypoint_num_gpus": 8}, "entrypoint_num_gpus"),
        ({"entrypoint": "tokenyard-train --model small-model --training-file file-none"}, "training_file"),
        ({"entrypoint": "tokenyard-train", "unknown": 1}, "unknown"),
    ],
)
async def test_anything_else_is_refused_with_a_reason(url: str, body: dict[str, object], param: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer ty-acme"}) as client:
        reply = await client.post("/api/jobs/", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param, reply.text


async def test_ray_jobs_need_a_key(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/version")).status_code == 401
        assert (await client.get("/api/jobs/")).status_code == 401
