"""One replica: Ray's vLLM engine with vLLM's own HTTP app, our layers in front of it, and a witness inside.

vLLM and what needs it are imported by the replica as it starts, because Serve loads this module also to build the
application.
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from prometheus_client import REGISTRY
from ray import serve
from starlette.types import ASGIApp

from tokenyard.core.errors import TokenyardError
from tokenyard.core.models import LoraSpec, ModelSpec, ModelTask
from tokenyard.core.replica import ReplicaLoad
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.node import bring_to_node
from tokenyard_deployments.serving.adapters.disk_cache import DiskCache
from tokenyard_deployments.serving.adapters.files import AdapterFiles
from tokenyard_deployments.serving.adapters.fitting import FittingAdapters
from tokenyard_deployments.serving.adapters.metrics import ResidencyMetrics
from tokenyard_deployments.serving.adapters.published import PublishedAdapters
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.autoscaling import TOKENS
from tokenyard_deployments.serving.engine.cpus import dtype_settings, thread_settings
from tokenyard_deployments.serving.engine.launch import load_ahead, loading
from tokenyard_deployments.serving.front.admission import EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.bearer import RequireBearer
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.internal_routes import internal_router
from tokenyard_deployments.serving.front.request_metering import RequestMetering
from tokenyard_deployments.serving.replica_settings import ReplicaSettings
from tokenyard_deployments.serving.reporter import Reporter
from tokenyard_deployments.serving.start_phases import StartPhases
from tokenyard_deployments.serving.warm_up import warm_up
from tokenyard_deployments.serving.watchdog import Watchdog

_LOG = logging.getLogger(__name__)
HEALTH_INTERVAL_S = 0.25
LAST_REPORTS_TIMEOUT_S = 5.0
ENGINE_DIED = 70  # exit status


class ReplicaServer:
    """Serves one base model and the adapters over it; `llm_config` holds the arguments of Ray's `LLMConfig`."""

    async def __init__(self, llm_config: dict[str, Any], spec: ModelSpec) -> None:  # type: ignore[misc]
        self._phases = StartPhases()
        self._settings = ReplicaSettings.from_environment(os.environ)
        environment = llm_config["runtime_env"]["env_vars"]
        on_cpu = llm_config["accelerator_config"]["kind"] == "cpu"
        os.environ.update({**self._settings.caches, **environment, **thread_settings(environment)})
        if on_cpu:
            load_ahead()
        with loading():
            from ray.serve.llm import LLMConfig  # noqa: PLC0415

            from tokenyard_deployments.serving.engine.ray_inside import keep_grpc_on_loopback  # noqa: PLC0415
            from tokenyard_deployments.serving.engine.vllm_engine import TokenyardEngine  # noqa: PLC0415

        keep_grpc_on_loopback()
        self._phases.ended("imports")
        self._path = Path(llm_config["model_loading_config"]["model_source"])
        await asyncio.to_thread(bring_to_node, spec, self._path)
        self._phases.ended("content")
        self._spec = spec
        engine = llm_config["engine_kwargs"]
        if on_cpu:
            engine |= dtype_settings(engine, self._path)
        self._capacity, self._room = int(engine["max_num_seqs"]), int(engine.get("max_cpu_loras", 0))
        self._name = serve.get_replica_context().replica_id.to_full_id_str()
        self.engine = TokenyardEngine(LLMConfig(**llm_config))
        await self.start()

    async def start(self) -> None:
        """Start the engine, then all that stands around it."""
        from tokenyard_deployments.serving.engine.ray_inside import keep_serve_log  # noqa: PLC0415

        with keep_serve_log():
            await self.engine.start()
        self._phases.ended("engine", await self.engine.start_seconds())
        self._admission = EngineAdmission(EngineBounds.of(self._spec, self._capacity))
        lora = self._spec.lora or LoraSpec()
        # Where the description pins it, it was checked before the engine started: large weights take minutes to hash.
        content = self._spec.content_hash
        if content is None and self._room:
            content = await asyncio.to_thread(content_hash, self._path)
        cache = DiskCache(self._settings.directory / "adapters", self._settings.adapter_disk_bytes)
        files = AdapterFiles(
            PublishedAdapters(self._settings.blob_url),
            cache,
            model=self._spec.id,
            base_content_hash=content or "",
        )
        self._residency = Residency(self.engine, FittingAdapters(files, self._path, lora.rules), self._room)
        ResidencyMetrics(self._residency, files, cache).show_in(REGISTRY)
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

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve by what the number of replicas follows the load."""
        return {TOKENS: float(self._admission.tokens)}

    async def __serve_build_asgi_app__(self) -> Any:
        app = await self.engine.build_asgi_app()
        self._phases.ended("routes")
        await warm_up(app, self._spec)
        self._phases.ended("warm_up")
        self._phases.log()
        self._phases.show_in(REGISTRY)
        app.include_router(
            internal_router(
                replica=self._name,
                model=self._spec.id,
                engine=self.engine,
                load=self._load,
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
            load=self._load,
        )
        return self._front

    def _load(self) -> ReplicaLoad:
        sequences = self._admission.sequences
        return ReplicaLoad(sequences, self._capacity, self.engine.waiting_tokens if sequences else 0)

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


async def _render(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TokenyardError)
    return error_response(error)
