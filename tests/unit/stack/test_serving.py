"""The replicas are asked for until Ray can take the question, and waited for until they run or cannot."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tokenyard.settings import Settings
from tokenyard.stack import serving
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.serving import deploy_models, own_models, until_models_run

MODEL = "smollm2-135m-instruct"
SOLD = """
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
    with pytest.raises(StackFailed, match="`replicas` must be at least 1; to serve it no more, take it out"):
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


async def test_models_are_waited_for_and_their_state_is_told(settings: Settings, dashboard: RayDashboard) -> None:
    dashboard.statuses = [{}, {MODEL: {"status": "DEPLOYING"}}, {MODEL: {"status": "RUNNING"}}]
    told: list[str] = []
    await asyncio.wait_for(until_models_run(settings, told.append), 10)
    assert told == ["Serve is starting", f"{MODEL} deploying"]


async def test_a_model_that_cannot_run_ends_the_wait_with_its_reason(
    settings: Settings, dashboard: RayDashboard
) -> None:
    dashboard.statuses = [{MODEL: {"status": "DEPLOY_FAILED", "message": "no such folder"}}]
    with pytest.raises(StackFailed, match=r"cannot be served \(DEPLOY_FAILED\): no such folder"):
        await until_models_run(settings)
