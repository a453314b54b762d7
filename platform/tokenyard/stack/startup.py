"""The steps of a start, each shown while it goes on."""

import asyncio
from collections.abc import Mapping

from sqlalchemy.exc import SQLAlchemyError

from tokenyard.settings import Settings
from tokenyard.stack.base_models import pull
from tokenyard.stack.installation import StackFailed, local_url
from tokenyard.stack.processes.parts import our_parts, valkey_part
from tokenyard.stack.processes.probes import answers_http, until_ready
from tokenyard.stack.processes.supervisor import Supervisor
from tokenyard.stack.progress import Progress
from tokenyard.stack.ray_head import prepare_session_folder, ray_part
from tokenyard.stack.serving import deploy_models, until_models_run
from tokenyard.storage.migrate import upgrade

ABLE_TO_SERVE_LIMIT_S = 120.0


class Startup:
    """Starts one part after the other; what can wait for itself (replicas) is waited for last."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], supervisor: Supervisor, progress: Progress
    ) -> None:
        self.settings = settings
        self._environment = environment
        self._supervisor = supervisor
        self._progress = progress

    async def base_models(self) -> None:
        """Fetch the base models that are not there yet, and look whether those that are there are complete."""
        for model in self.settings.models:
            with self._progress.step(f"Base model {model}") as step:
                folder = self.settings.effective_models_path / model
                stood_there = folder.exists()
                arguments = (model, "--into", str(folder), "--specs", str(self.settings.models_dir))
                try:
                    await pull(arguments, self._environment, step.show)
                except StackFailed as failure:
                    hint = (
                        f"Remove {folder} to fetch it again." if stood_there else "Models are set by TOKENYARD_MODELS."
                    )
                    raise StackFailed(f"{failure}. {hint}") from failure

    async def stores(self) -> None:
        """Start Valkey, and bring the database to the newest schema."""
        if not self.settings.redis_url:
            await self._supervisor.start(valkey_part(self.settings, self._environment))
        with self._progress.step("Valkey and database"):
            try:
                await asyncio.to_thread(upgrade, self.settings.effective_database_url)
            except (SQLAlchemyError, OSError) as error:
                raise StackFailed(f"The database cannot be brought up to date: {error}") from error
            if not self.settings.redis_url:
                await self._supervisor.ready("valkey")

    async def ray(self) -> None:
        """Start the local Ray and ask Serve for the replicas; they load while the rest starts."""
        with self._progress.step("Ray"):
            if not self.settings.ray_url:
                prepare_session_folder(self.settings.data_dir)
                part = ray_part(self.settings, self._environment)
                await self._supervisor.start(part, after_restart=self._deploy)
                await self._supervisor.ready("ray")
            await self._deploy()

    async def our_processes(self) -> None:
        """Start gateway, worker and dashboard."""
        parts = our_parts(self.settings, self._environment)
        with self._progress.step("Gateway, worker, dashboard"):
            for part in parts:
                await self._supervisor.start(part)
            for part in parts:
                await self._supervisor.ready(part.name)

    async def models_served(self) -> None:
        """Wait until every model has a replica."""
        with self._progress.step(f"Replicas of {', '.join(self.settings.models)}") as step:
            await self._supervisor.unless_failed(until_models_run(self.settings, step.show))

    async def able_to_serve(self) -> None:
        """Wait until the gateway knows of the replicas and its budgets are loaded."""
        probe = answers_http(f"{local_url(self.settings, self.settings.gateway_port)}/ready")
        with self._progress.step("Gateway able to serve"):
            try:
                await self._supervisor.unless_failed(until_ready(probe, limit_s=ABLE_TO_SERVE_LIMIT_S))
            except TimeoutError as error:
                raise StackFailed(
                    f"The gateway did not become able to serve within {ABLE_TO_SERVE_LIMIT_S:.0f} s: {error}."
                    f" The logs of gateway, worker and ray are in {self.settings.data_dir.absolute() / 'logs'}"
                ) from error

    async def _deploy(self) -> None:
        await deploy_models(self.settings)
