"""What RayJobs sends and how it takes each answer, over a real socket; the real Ray stands in the integration test."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tokenyard.clients import ray_jobs
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.errors import Unavailable
from tokenyard.core.training import RunState, RunStatus


@dataclass
class Head:
    """Ray's dashboard: answers what it is told to and notes what it was asked."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    authorization: str | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.authorization = request.headers.get("authorization")
        body = await request.json() if request.can_read_body else None
        self.asked.append((f"{request.method} {request.path}", body))
        status, text = self.answers.get(f"{request.method} {request.path}", (404, "no such job"))
        return web.Response(status=status, text=text)


@pytest.fixture
async def head() -> Head:
    return Head()


@pytest.fixture
async def jobs(head: Head, tmp_path: Path) -> AsyncIterator[RayJobs]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", head.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with aiohttp.ClientSession() as session:
        yield RayJobs(session, f"http://127.0.0.1:{port}/", token)
    await runner.cleanup()


async def test_a_job_is_submitted_with_time_to_stop(head: Head, jobs: RayJobs) -> None:
    head.answers["POST /api/jobs/"] = (200, '{"submission_id": "a-1"}')
    await jobs.submit("a-1", "python -m job file:///a", metadata={"job": "a"})
    assert head.asked[-1] == (
        "POST /api/jobs/",
        {
            "submission_id": "a-1",
            "entrypoint": "python -m job file:///a",
            "metadata": {"job": "a"},
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}},
        },
    )
    assert head.authorization == "Bearer secret"


async def test_an_id_that_ray_knows_is_not_submitted_again(head: Head, jobs: RayJobs) -> None:
    head.answers["GET /api/jobs/a-1"] = (200, '{"status": "RUNNING", "message": "it runs"}')
    await jobs.submit("a-1", "x", metadata={})
    assert [what for what, _ in head.asked] == ["GET /api/jobs/a-1"]
    assert await jobs.status("a-1") == RunStatus(RunState.RUNNING, "it runs")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"])
async def test_every_state_of_rays(head: Head, jobs: RayJobs, state: str) -> None:
    head.answers["GET /api/jobs/a-1"] = (200, f'{{"status": "{state}", "message": null, "driver_exit_code": 1}}')
    assert await jobs.status("a-1") == RunStatus(RunState(state.lower()))


@pytest.mark.parametrize("answer", [(500, "trouble"), (401, "no"), (200, "<html>"), (200, '{"status": "PUZZLED"}')])
async def test_an_answer_that_says_nothing(head: Head, jobs: RayJobs, answer: tuple[int, str]) -> None:
    head.answers["GET /api/jobs/a-1"] = answer
    with pytest.raises(Unavailable) as error:
        await jobs.status("a-1")
    assert error.value.code == "training_unavailable"
    assert "secret" not in error.value.message


async def test_a_refused_job_says_so(head: Head, jobs: RayJobs) -> None:
    head.answers["POST /api/jobs/"] = (500, "Traceback of Ray")
    with pytest.raises(Unavailable) as error:
        await jobs.submit("a-1", "x", metadata={})
    assert "Traceback" not in error.value.message


async def test_what_ray_does_not_know_is_none_or_nothing(jobs: RayJobs) -> None:
    assert await jobs.status("a-1") is None
    assert await jobs.logs("a-1") is None
    await jobs.stop("a-1")


async def test_logs(head: Head, jobs: RayJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    head.answers["GET /api/jobs/a-1/logs"] = (200, '{"logs": "line 1\\nline 2"}')
    assert await jobs.logs("a-1") == "line 1\nline 2"
    monkeypatch.setattr(ray_jobs, "MAX_LOG_BYTES", 10)
    with pytest.raises(Unavailable):
        await jobs.logs("a-1")


async def test_nobody_there() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable):
            await RayJobs(session, "http://127.0.0.1:9").status("a-1")
