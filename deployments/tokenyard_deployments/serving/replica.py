"""One replica: Ray's vLLM engine with vLLM's own HTTP app, our layers in front of it, and a witness inside.

vLLM and what needs it are imported by the replica as it starts, because Serve loads this module also to build the
application.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from ray import serve
from starlette.types import ASGIApp

from tokenyard.core.errors import TokenyardError
from tokenyard.core.models import LoraSpec, ModelSpec, ModelTask
from tokenyard_deployments.serving.adapters.files import AdapterFiles
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.engine.cpus import thread_settings
from tokenyard_deployments.serving.engine.launch import load_ahead
from tokenyard_deployments.serving.front.admission import EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.bearer import RequireBearer
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.internal_routes import internal_router
from tokenyard_deployments.serving.front.request_metering import RequestMetering
from tokenyard_deployments.serving.replica_settings import ReplicaSettings
from tokenyard_deployments.serving.reporter import Reporter
from tokenyard_deployments.serving.warm_up import warm_up
from tokenyard_deployments.serving.watchdog import Watchdog

_LOG = logging.getLogger(__name__)
HEALTH_INTERVAL_S = 0.25
LAST_REPORTS_TIMEOUT_S = 5.0
ENGINE_DIED = 70  # exit status


class ReplicaServer:
    """Serves one base model and the adapters over it; `llm_config` holds the arguments of Ray's `LLMConfig`."""

    async def __init__(self, llm_config: dict[str, Any], spec: ModelSpec) -> None:  # type: ignore[misc]
        self._settings = ReplicaSettings.from_environment(os.environ)
        environment = llm_config["runtime_env"]["env_vars"]
        os.environ.update({**self._settings.caches, **environment, **thread_settings(environment)})
        if llm_config["accelerator_config"]["kind"] == "cpu":
            load_ahead()
        from ray.serve.llm import LLMConfig  # noqa: PLC0415

        from tokenyard_deployments.serving.engine.ray_inside import keep_grpc_on_loopback  # noqa: PLC0415
        from tokenyard_deployments.serving.engine.vllm_engine import TokenyardEngine  # noqa: PLC0415

        keep_grpc_on_loopback()
        self._spec = spec
        self._capacity = int(llm_config["engine_kwargs"]["max_num_seqs"])
        self._name = serve.get_replica_context().replica_id.to_full_id_str()
        self.engine = TokenyardEngine(LLMConfig(**llm_config))
        await self.start()

    async def start(self) -> None:
        """Start the engine, then all that stands around it."""
        from tokenyard_deployments.serving.engine.ray_inside import keep_serve_log  # noqa: PLC0415

        with keep_serve_log():
            await self.engine.start()
        lora = self._spec.lora or LoraSpec(max_cpu_loras=0)
        self._admission = EngineAdmission(EngineBounds.of(self._spec, self._capacity))
        files = AdapterFiles(self._settings.blob_url, self._own_folder(), self._spec.id, lora)
        self._residency = Residency(self.engine, files, lora.max_cpu_loras)
        self._reporter = Reporter(self._settings.redis_url, self._settings.directory / "spool")
        self._reporter.start()
        self._front: RequestMetering | None = None
        watchdog = Watchdog(self.engine, lambda: self._admission.busy_since, self._spec.max_silence_s)
        self._watches = [
            asyncio.create_task(self._exit_with_engine(), name="watch the engine's process"),
            asyncio.create_task(self._give_up_hung(watchdog), name="watch the engine's signs of life"),
        ]

    async def check_health(self) -> None:
        """Tell Serve whether the engine is well, by raising where it is not."""
        await self.engine.check_health()

    async def __serve_build_asgi_app__(self) -> Any:
        app = await self.engine.build_asgi_app()
        await warm_up(app, self._spec)
        app.include_router(
            internal_router(
                replica=self._name,
                model=self._spec.id,
                capacity=self._capacity,
                engine=self.engine,
                admission=self._admission,
                residency=self._residency,
            )
        )
        app.add_exception_handler(TokenyardError, _render)
        # vLLM has built the stack already; without it Starlette builds it again, with our layers around.
        app.middleware_stack = None
        app.add_middleware(self._metering)
        app.add_middleware(RequireBearer, bearer=self._settings.bearer)
        return app

    def _metering(self, app: ASGIApp) -> RequestMetering:
        self._front = RequestMetering(
            app,
            secret=self._settings.meter_secret,
            replica=self._name,
            engine=self.engine,
            admission=self._admission,
            residency=self._residency,
            reporter=self._reporter,
            context_length=self._spec.context_length,
            generates=self._spec.task is ModelTask.CHAT,
            max_wait_s=self._spec.max_wait_s,
        )
        return self._front

    async def _give_up_hung(self, watchdog: Watchdog) -> None:
        await watchdog.until_hung()
        _LOG.error("the engine of %s hangs", self._name)
        self.engine.give_up()
        if self._front is not None:
            self._front.hang_up_all()

    async def _exit_with_engine(self) -> None:
        """End this process soon after its engine: Serve then replaces it in seconds."""
        while not self.engine.dead:  # noqa: ASYNC110 - vLLM tells nobody
            await asyncio.sleep(HEALTH_INTERVAL_S)
        _LOG.error("the engine of %s is gone: the replica exits", self._name)
        # Requests in flight get their error, and hand in their counts.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORTS_TIMEOUT_S):
                await self._admission.empty()
        await self._reporter.close()
        self.engine.kill()
        os._exit(ENGINE_DIED)

    def _own_folder(self) -> Path:
        """Return this process' folder for adapters; folders of processes that are gone are deleted."""
        root = self._settings.directory / "adapters"
        root.mkdir(parents=True, exist_ok=True)
        for folder in root.iterdir():
            if folder.name.isdecimal() and not Path("/proc", folder.name).exists():
                shutil.rmtree(folder, ignore_errors=True)
        return root / str(os.getpid())


async def _render(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TokenyardError)
    return error_response(error)
