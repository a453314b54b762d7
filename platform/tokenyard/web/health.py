"""`/health` (this process is alive) and `/ready` (it can serve)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Check = Callable[[], Awaitable[bool]]

CHECK_TIMEOUT_S = 2.0
_LOG = logging.getLogger(__name__)


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """Return both routes; `/ready` runs all `checks` at once and says how each one ended."""

    async def health(_request: Request) -> Response:
        return _answer(200, {"status": "ok"})

    async def ready(_request: Request) -> Response:
        results = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
        told = {name: "ok" if passed else "failing" for name, passed in zip(checks, results, strict=True)}
        able = all(results)
        return _answer(200 if able else 503, {"status": "ok" if able else "not_ready", "checks": told})

    return [Route("/health", health), Route("/ready", ready)]


async def _passes(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except Exception as error:  # whatever goes wrong in a check means: not ready
        _LOG.warning("readiness check %s failed: %s", name, type(error).__name__)
        return False


def _answer(status: int, body: object) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
