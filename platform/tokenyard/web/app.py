"""The common part of every FastAPI app of ours: error shapes, authentication, health, metrics, request ids."""

import asyncio
from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
import orjson
from fastapi import APIRouter, Depends, FastAPI, Response
from prometheus_client import CollectorRegistry
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from tokenyard.core.errors import ErrorBody
from tokenyard.core.ids import new_request_id
from tokenyard.web.auth import Authenticator
from tokenyard.web.errors import install_error_handlers
from tokenyard.web.health import Dependencies, health_router
from tokenyard.web.metrics import metrics_router
from tokenyard.web.queries import DescribedQueries
from tokenyard.web.rated_authenticator import RatedAuthenticator
from tokenyard.web.request_guard import RequestGuard

_REFERENCE = "#/components/schemas/{name}"
_ERROR = {"application/json": {"schema": {"$ref": _REFERENCE.format(name=ErrorBody.__name__)}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be served as it is.", "content": _ERROR},
    "5XX": {"description": "The request is not to blame; it may be sent again.", "content": _ERROR},
}


def create_app(
    *,
    title: str,
    description: str = "",
    routers: Sequence[APIRouter] = (),
    authenticator: Authenticator | None = None,
    dependencies: Dependencies | None = None,
    registry: CollectorRegistry | None = None,
    lifespan: Lifespan[FastAPI] | None = None,
    streaming_paths: Collection[str] = (),
) -> FastAPI:
    """Return an app with `/health`, `/ready`, `/metrics` where a registry is given, and `routers`.

    Where a `description` is given, `/openapi.json` describes the app whole; there are no pages around it.
    Bodies are bounded, except on `streaming_paths`, whose routes do it themselves.
    """
    # A redirect to an address made of the client's Host header would send keys over plain HTTP.
    app = _DescribedApp(
        title=title,
        description=description,
        version=version("tokenyard"),
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.authenticator = None if authenticator is None else RatedAuthenticator(authenticator)
    app.include_router(health_router(dependencies))
    if registry is not None:
        app.include_router(metrics_router(registry))
    if description:
        _serve_description(app)
    known = [Depends(DescribedQueries(app).refuse_unknown)]
    for router in routers:
        app.include_router(router, dependencies=known)
    install_error_handlers(app)
    app.add_middleware(RequestGuard, streaming_paths=streaming_paths)
    return app


class _DescribedApp(FastAPI):
    """FastAPI's description speaks of errors in its own shape; this one speaks of ours."""

    def build_middleware_stack(self) -> ASGIApp:
        # Unforeseen errors are answered outside of all middleware that can be added, and need their id too.
        return RequestIds(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _, schemas = msgspec.json.schema_components([ErrorBody], ref_template=_REFERENCE)
            super().openapi().setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return super().openapi()


def _serve_description(app: FastAPI) -> None:
    @cache
    def document() -> bytes:
        return orjson.dumps(app.openapi())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        # Making it takes long enough to hold up the streams of others.
        return Response(await asyncio.to_thread(document), media_type="application/json")


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
