"""The replicas are asked for until Ray can take the question, and waited for until they run or cannot."""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from support.fakes.model_files import write_model
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.settings import Settings
from tokenyard.stack import serving
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.progress import Progress
from tokenyard.stack.serving import (
    deploy,
    deploy_models,
    installed_kind,
    own_models,
    until_models_run,
    what_to_serve,
)
from tokenyard_deployments.base_models.content import content_hash

MODEL = "smollm2-135m-instruct"
SOLD = """
version: 2
id: sold
source: {kind: server, url: https://models.example/v1, model: theirs, api_key_setting: theirs}
context_length: 1024
default_max_tokens: 128
template_tokens: 8
template_tokens_per_message: 4
created: 1
"""


class RayDashboard:
    """Answers as Ray Serve's API does, from a list of prepared answers; the last one stays."""

    def __init__(self) -> None:
        self.put_answers: list[tuple[int, str]] = [(200, "")]
        self.statuses: list[dict[str, object]] = [{}]
        self.configs: list[dict[str, object]] = []

    async def put(self, request: web.Request) -> web.Response:
        self.configs.append(msgspec.json.decode(await request.read()))
        status, text = self.put_answers.pop(0) if len(self.put_answers) > 1 else self.put_answers[0]
        return web.Response(status=status, text=text)

    async def get(self, _request: web.Request) -> web.Response:
        applications = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.json_response({"applications": applications, "target_groups": []})


@pytest.fixture
def dashboard() -> RayDashboard:
    return RayDashboard()


@pytest.fixture
async def settings(dashboard: RayDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    monkeypatch.setattr(serving, "POLL_S", 0.01)
    (tmp_path / "token").write_text("t" * 32)
    app = web.Application()
    app.router.add_put("/api/serve/applications/", dashboard.put)
    app.router.add_get("/api/serve/applications/", dashboard.get)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        yield Settings(data_dir=tmp_path, ray_url=url, ray_token_file=tmp_path / "token")


async def test_ray_is_asked_until_its_node_can_take_work(settings: Settings, dashboard: RayDashboard) -> None:
    dashboard.put_answers = [(500, "Traceback: no node yet"), (500, "Traceback: no node yet"), (200, "")]
    await deploy_models(settings)
    assert len(dashboard.configs) == 3
    (application,) = msgspec.convert(dashboard.configs[-1]["applications"], list[dict[str, object]])
    assert application["name"] == MODEL


async def test_what_serve_refuses_is_not_asked_again(settings: Settings, dashboard: RayDashboard) -> None:
    dashboard.put_answers = [(400, "ValidationError: no")]
    with pytest.raises(StackFailed, match=r"did not take the models: .*ValidationError"):
        await deploy_models(settings)
    assert len(dashboard.configs) == 1


async def test_a_model_without_description_is_said_before_ray_is_asked(
    settings: Settings, dashboard: RayDashboard
) -> None:
    with pytest.raises(StackFailed, match="no usable description"):
        await deploy_models(settings.model_copy(update={"models": ("nowhere",)}))
    assert dashboard.configs == []


async def test_a_model_of_no_replicas_is_said_before_ray_is_asked(
    settings: Settings, dashboard: RayDashboard, tmp_path: Path
) -> None:
    shipped = (settings.models_dir / f"{MODEL}.yaml").read_text()
    (tmp_path / f"{MODEL}.yaml").write_text(shipped.replace("replicas: 1", "replicas: 0"))
    with pytest.raises(StackFailed, match=r"`replicas` must be at least 1: .* to serve it no more, take it out"):
        await deploy_models(settings.model_copy(update={"models_dir": tmp_path}))
    assert dashboard.configs == []


async def test_a_model_that_is_served_elsewhere_is_not_deployed(
    settings: Settings, dashboard: RayDashboard, tmp_path: Path
) -> None:
    own = (settings.models_dir / f"{MODEL}.yaml").read_bytes()
    (tmp_path / f"{MODEL}.yaml").write_bytes(own)
    (tmp_path / "sold.yaml").write_text(SOLD)
    both = settings.model_copy(update={"models_dir": tmp_path, "models": (MODEL, "sold")})
    assert [spec.id for spec in own_models(both)] == [MODEL]
    await deploy_models(both)
    (application,) = msgspec.convert(dashboard.configs[-1]["applications"], list[dict[str, object]])
    assert application["name"] == MODEL
    await deploy_models(both.model_copy(update={"models": ("sold",)}))
    assert dashboard.configs[-1]["applications"] == []


@pytest.fixture
def changeable(settings: Settings, tmp_path: Path) -> tuple[Settings, Path]:
    """The settings with a model whose file may be changed; its own files are there."""
    file, folder = tmp_path / f"{MODEL}.yaml", write_model(tmp_path / "models" / MODEL)
    shipped = read_model_spec((settings.models_dir / f"{MODEL}.yaml").read_bytes())
    file.write_bytes(write_model_spec(msgspec.structs.replace(shipped, content_hash=content_hash(folder))))
    return settings.model_copy(update={"models_dir": tmp_path}), file


async def test_a_change_of_a_file_is_deployed_and_waited_for(
    changeable: tuple[Settings, Path], dashboard: RayDashboard
) -> None:
    settings, file = changeable
    said = io.StringIO()
    dashboard.statuses = [{MODEL: {"status": "RUNNING"}}]
    await deploy(settings, os.environ, Progress(said))
    changed = msgspec.structs.replace(read_model_spec(file.read_bytes()), max_wait_s=30.0, max_surge_percent=100)
    file.write_bytes(write_model_spec(changed))
    dashboard.statuses = [{MODEL: {"status": "DEPLOYING"}}, {MODEL: {"status": "RUNNING"}}]
    await deploy(settings, os.environ, Progress(said))
    before, after = (msgspec.convert(config["applications"], list[dict[str, Any]])[0] for config in dashboard.configs)
    assert (before["args"]["spec"]["max_wait_s"], after["args"]["spec"]["max_wait_s"]) == (60.0, 30.0)
    assert [one["deployments"][0]["max_surge_percent"] for one in (before, after)] == [25, 100]
    assert f"Replicas of {MODEL}: done" in said.getvalue()
    assert len(dashboard.statuses) == 1, "it waited for the new ones"


async def test_a_file_that_is_wrong_and_a_model_that_is_another_are_not_deployed(
    changeable: tuple[Settings, Path], dashboard: RayDashboard
) -> None:
    settings, file = changeable
    right = file.read_bytes()
    file.write_bytes(right.replace(b"version: 2", b"version: 1"))
    with pytest.raises(StackFailed, match="it is of version 1, and 2 is read"):
        await deploy(settings, os.environ, Progress(io.StringIO()))
    spec = read_model_spec(right)
    file.write_bytes(write_model_spec(msgspec.structs.replace(spec, content_hash="0" * 64)))
    with pytest.raises(StackFailed, match=r"is not the pinned model: .*Remove .* to fetch it again"):
        await deploy(settings, os.environ, Progress(io.StringIO()))
    assert dashboard.configs == []


def test_a_model_for_another_kind_of_machine_needs_a_cluster_that_has_them(
    changeable: tuple[Settings, Path],
) -> None:
    settings, file = changeable
    other = "cuda" if installed_kind() == "cpu" else "cpu"
    file.write_bytes(write_model_spec(msgspec.structs.replace(read_model_spec(file.read_bytes()), runs_on=other)))
    (application,) = what_to_serve(settings)["applications"]
    assert application["args"]["kind"] == other
    with pytest.raises(StackFailed, match=f"says `runs_on: {other}`, and the vLLM of this machine"):
        what_to_serve(settings.model_copy(update={"ray_url": ""}))


async def test_models_are_waited_for_and_their_state_is_told(settings: Settings, dashboard: RayDashboard) -> None:
    dashboard.statuses = [{}, {MODEL: {"status": "DEPLOYING"}}, {MODEL: {"status": "RUNNING"}}]
    told: list[str] = []
    await asyncio.wait_for(until_models_run(settings, told.append), 10)
    assert told == ["Serve is starting", f"{MODEL} deploying"]


async def test_a_lost_replica_that_is_being_replaced_is_waited_for(settings: Settings, dashboard: RayDashboard) -> None:
    dashboard.statuses = [{MODEL: {"status": "UNHEALTHY"}}, {MODEL: {"status": "RUNNING"}}]
    told: list[str] = []
    await asyncio.wait_for(until_models_run(settings, told.append), 10)
    assert told == [f"{MODEL} unhealthy"]


async def test_a_model_that_cannot_run_ends_the_wait_with_its_reason(
    settings: Settings, dashboard: RayDashboard
) -> None:
    dashboard.statuses = [{MODEL: {"status": "DEPLOY_FAILED", "message": "no such folder"}}]
    with pytest.raises(StackFailed, match=r"cannot be served \(DEPLOY_FAILED\): no such folder"):
        await until_models_run(settings)


def test_replicas_of_a_cluster_listen_for_other_machines(tmp_path: Path) -> None:
    """Serve names each by its node's address; `host` is where our own processes listen, here."""
    here = Settings(data_dir=tmp_path, host="127.0.0.1")
    assert what_to_serve(here)["http_options"]["host"] == "127.0.0.1"
    elsewhere = here.model_copy(update={"ray_url": "http://ray.example:8265"})
    assert what_to_serve(elsewhere)["http_options"]["host"] == "0.0.0.0"
