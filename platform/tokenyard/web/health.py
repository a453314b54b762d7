"""`/health` (this process is alive) and `/ready` (it can answer), and how the parts do that it stands on.

A gateway whose Redis, database or replicas are away is ready: it answers what it can, and the rest with a 503 of ours.
Were it not, an outage of one part would take away all gateways, and with them whatever does not need that part.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Self

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel

from tokenyard.web.loops import Loop, run_loops

Check = Callable[[], Awaitable[bool]]
State = Literal["ok", "failing"]

CHECK_TIMEOUT_S = 2.0
CHECK_INTERVAL_S = 1.0
_LOG = logging.getLogger(__name__)


class Health(BaseModel):
    """This process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """This process can answer. `checks` tell how what it stands on did a moment ago."""

    status: Literal["ok"] = "ok"
    checks: dict[str, State]


class Dependencies:
    """Used as `async with`: looks now and then whether each part is there, so that nobody who asks has to wait."""

    def __init__(self, checks: Mapping[str, Check], registry: CollectorRegistry | None = None) -> None:
        self._checks = checks
        self._up: Gauge | None = None
        if registry is not None:
            about = "Whether a part that the process stands on is there."
            self._up = Gauge("tokenyard_dependency_up", about, ("dependency",), registry=registry)
        self._task: asyncio.Task[None] | None = None
        self.states: dict[str, State] = {}

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(run_loops([Loop("dependencies", self.look, CHECK_INTERVAL_S)]))
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def look(self) -> None:
        """Run all checks at once."""
        await asyncio.gather(*(self._look(name, check) for name, check in self._checks.items()))

    async def _look(self, name: str, check: Check) -> None:
        passed = await _passes(check)
        state: State = "ok" if passed else "failing"
        if self.states.get(name, "ok") != state:
            _LOG.warning("%s: %s", name, state)
        self.states[name] = state
        if self._up is not None:
            self._up.labels(name).set(passed)


def health_router(dependencies: Dependencies | None) -> APIRouter:
    router = APIRouter(tags=["process"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Health:
        return Health()

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready")
    async def ready() -> Readiness:
        return Readiness(checks={} if dependencies is None else dependencies.states)

    return router


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except Exception:  # whatever goes wrong in a check means: it is not there
        return False
