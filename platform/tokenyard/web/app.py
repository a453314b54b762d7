"""The common part of every FastAPI app of ours: error shapes, authentication, health, metrics, request ids."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from tokenyard.core.ids import new_request_id
from tokenyard.web.auth import Authenticator
from tokenyard.web.errors import install_error_handlers
from tokenyard.web.health import Check, health_routes
from tokenyard.web.metrics import metrics_route
from tokenyard.web.request_guard import RequestGuard


def create_app(
    *,
    title: str,
    routers: Sequence[APIRouter] = (),
    authenticator: Authenticator | None = None,
    checks: Mapping[str, Check] | None = None,
    registry: CollectorRegistry | None = None,
    lifespan: Lifespan[Any] | None = None,
    streaming_paths: Collection[str] = (),
) -> FastAPI:
    """Return an app with `/health`, `/ready`, `/metrics` where a registry is given, and `routers`.

    Bodies are bounded, except on `streaming_paths`, whose routes do it themselves.
    """
    # A redirect to an address made of the client's Host header would send keys over plain HTTP.
    app = FastAPI(
        title=title, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.authenticator = authenticator
    app.router.routes.extend(health_routes(checks or {}))
    if registry is not None:
        app.router.routes.append(metrics_route(registry))
    for router in routers:
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(RequestGuard, streaming_paths=streaming_paths)
    app.add_middleware(RequestIds)
    return app


class RequestIds:
    """Gives every reply an `x-request-id` of our own making."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = new_request_id()
        scope.setdefault("state", {})["request_id"] = request

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-request-id", request)
            await send(message)

        await self._app(scope, receive, with_id)
