"""The gateway as one ASGI application: the paid endpoints bare, everything else through FastAPI."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from tokenyard.gateway.endpoints.anthropic.tenant_routes import count_tokens_router
from tokenyard.gateway.endpoints.anthropic.unpaid_replies import AnthropicReplies
from tokenyard.gateway.endpoints.openapi import describe_paid_endpoints
from tokenyard.gateway.endpoints.responses.tenant_routes import input_tokens_router
from tokenyard.gateway.endpoints.table import ENDPOINTS
from tokenyard.gateway.path.inference import Inference
from tokenyard.web.app import create_app as create_web_app
from tokenyard.web.auth import Authenticator
from tokenyard.web.health import Dependencies


def create_app(
    *,
    authenticator: Authenticator,
    inference: Inference | None,
    routers: Sequence[APIRouter] = (),
    dependencies: Dependencies | None = None,
    registry: CollectorRegistry | None = None,
    streaming_paths: Collection[str] = (),
) -> ASGIApp:
    """Return the application. Without `inference` it serves only the control plane's `routers`.

    At its end, requests still under way are settled before the collaborators close.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if inference is not None:
            await inference.drain()

    app = create_web_app(
        title="Tokenyard",
        description="OpenAI-compatible inference, files and fine-tuning for tenants; administration for operators.",
        routers=(*routers, *(() if inference is None else _counting(inference))),
        authenticator=authenticator,
        dependencies=dependencies,
        registry=registry,
        lifespan=lifespan,
        streaming_paths=streaming_paths,
    )
    if inference is None:
        return app
    describe_paid_endpoints(app)
    return Gateway(inference, app)


def _counting(inference: Inference) -> Sequence[APIRouter]:
    return count_tokens_router(inference), input_tokens_router(inference)


class Gateway:
    """Sends the paid endpoints past FastAPI and all middleware, which would cost more than the rest of the path."""

    def __init__(self, inference: Inference, app: FastAPI) -> None:
        self._inference = inference
        self.control_plane = app
        self._unpaid = AnthropicReplies(app)
        # What was answered at the address of a paid endpoint is listed at the same.
        read = {route.path for route in app.routes if isinstance(route, APIRoute) and "GET" in route.methods}
        self._paid = {
            endpoint.path: replace(endpoint, methods="GET, POST") if endpoint.path in read else endpoint
            for endpoint in ENDPOINTS
        }
        self._listed = read & self._paid.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._paid.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or (scope["method"] == "GET" and endpoint.path in self._listed):
            await self._unpaid(scope, receive, send)
        else:
            await self._inference(endpoint, scope, receive, send)
