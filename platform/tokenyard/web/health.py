"""`/health` (this process is alive) and `/ready` (it can serve)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

Check = Callable[[], Awaitable[bool]]

CHECK_TIMEOUT_S = 2.0
_LOG = logging.getLogger(__name__)


class Health(BaseModel):
    """This process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether this process can serve, and how each of its checks ended."""

    status: Literal["ok", "not_ready"]
    checks: dict[str, Literal["ok", "failing"]]


def health_router(checks: Mapping[str, Check]) -> APIRouter:
    """Return both routes; `/ready` runs all `checks` at once."""
    router = APIRouter(tags=["process"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Health:
        return Health()

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses={503: {"model": Readiness, "description": "A check fails."}})
    async def ready(response: Response) -> Readiness:
        passed = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
        able = all(passed)
        response.status_code = 200 if able else 503
        return Readiness(
            status="ok" if able else "not_ready",
            checks={name: "ok" if one else "failing" for name, one in zip(checks, passed, strict=True)},
        )

    return router


async def _passes(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except Exception as error:  # whatever goes wrong in a check means: not ready
        _LOG.warning("readiness check %s failed: %s", name, type(error).__name__)
        return False
