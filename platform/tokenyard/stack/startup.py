"""The steps of a start, each shown while it goes on; those that do not need each other go on at the same time."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.core.models import InvalidModelSpec
from tokenyard.settings import Settings
from tokenyard.stack.base_models import pull_served
from tokenyard.stack.first_start import FirstKeys, make_first_keys
from tokenyard.stack.installation import StackFailed, local_url
from tokenyard.stack.processes.parts import our_parts, valkey_part
from tokenyard.stack.processes.probes import able_to_serve, until_ready
from tokenyard.stack.processes.supervisor import Supervisor
from tokenyard.stack.progress import Progress
from tokenyard.stack.ray_head import prepare_session_folder, ray_part
from tokenyard.stack.serving import deploy_models, own_models, until_models_run
from tokenyard.storage.outage import DatabaseDown
from tokenyard_billing.pricing.rate_cards import InvalidRateCard

ABLE_TO_SERVE_LIMIT_S = 120.0


class Startup:
    """Starts everything of one run."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], supervisor: Supervisor, progress: Progress
    ) -> None:
        self.settings = settings
        self._environment = environment
        self._supervisor = supervisor
        self._progress = progress
        self._keys = FirstKeys()

    async def run(self) -> FirstKeys:
        """Start all parts; return the keys of a new installation.

        Raises:
            StackFailed: one of them cannot be started.
        """
        await together(self._control_plane(), self._serving())
        await self._able_to_serve()
        return self._keys

    async def _control_plane(self) -> None:
        await self._stores()
        await self._our_processes()
        self._keys = await make_first_keys(self.settings)

    async def _serving(self) -> None:
        models = [spec.id for spec in own_models(self.settings)]
        await together(pull_served(self.settings, models, self._environment, self._progress), self._ray())
        if not models:
            return await self._deploy()  # what Serve may still run is ended
        with self._progress.step(f"Replicas of {', '.join(models)}") as step:
            await self._deploy()
            await self._supervisor.unless_failed(until_models_run(self.settings, step.show))

    async def _stores(self) -> None:
        """Start Valkey, and bring the database to the newest schema, with its rate cards."""
        if not self.settings.redis_url:
            await self._supervisor.start(valkey_part(self.settings, self._environment))
        with self._progress.step("Valkey and database"):
            try:
                await asyncio.to_thread(bring_up_to_date, self.settings)
            except InvalidRateCard as error:
                raise StackFailed(f"The prices cannot be used: {error}") from error
            except InvalidModelSpec as error:
                raise StackFailed(f"A model of TOKENYARD_MODELS has no usable description: {error}") from error
            except (DatabaseDown, SQLAlchemyError, OSError) as error:
                raise StackFailed(f"The database cannot be brought up to date: {error.__cause__ or error}") from error
            if not self.settings.redis_url:
                await self._supervisor.ready("valkey")

    async def _ray(self) -> None:
        """Start the local Ray."""
        if self.settings.ray_url:
            return
        with self._progress.step("Ray"):
            prepare_session_folder(self.settings.data_dir)
            await self._supervisor.start(ray_part(self.settings, self._environment), after_restart=self._deploy)
            await self._supervisor.ready("ray")

    async def _deploy(self) -> None:
        await deploy_models(self.settings)

    async def _our_processes(self) -> None:
        """Start gateway, worker and dashboard."""
        parts = our_parts(self.settings, self._environment)
        with self._progress.step("Gateway, worker, dashboard"):
            for part in parts:
                await self._supervisor.start(part)
            for part in parts:
                await self._supervisor.ready(part.name)

    async def _able_to_serve(self) -> None:
        """Wait until the gateway knows of the replicas and its budgets are loaded."""
        probe = able_to_serve(local_url(self.settings, self.settings.gateway_port))
        with self._progress.step("Gateway able to serve"):
            try:
                await self._supervisor.unless_failed(until_ready(probe, limit_s=ABLE_TO_SERVE_LIMIT_S))
            except TimeoutError as error:
                raise StackFailed(
                    f"The gateway did not become able to serve within {ABLE_TO_SERVE_LIMIT_S:.0f} s: {error}."
                    f" The logs of gateway, worker and ray are in {self.settings.data_dir.absolute() / 'logs'}"
                ) from error


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run all; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
