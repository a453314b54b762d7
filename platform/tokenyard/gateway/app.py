"""The gateway as one ASGI application: the paid endpoints bare, everything else through FastAPI."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from tokenyard.core.clock import Clock
from tokenyard.gateway.endpoints.table import ENDPOINTS
from tokenyard.gateway.metrics import GatewayMetrics
from tokenyard.gateway.path.client import STALL_LIMIT_S
from tokenyard.gateway.path.inference import Inference
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.route import Router
from tokenyard.gateway.ports import Admission, ModelCatalog, ModelServer, Replicas
from tokenyard.web.access_log import AccessLog
from tokenyard.web.app import create_app as create_web_app
from tokenyard.web.auth import Authenticator
from tokenyard.web.health import Check


def create_inference(
    *,
    authenticator: Authenticator,
    catalog: ModelCatalog,
    admission: Admission,
    replicas: Replicas,
    model_server: ModelServer,
    meter_secret: bytes,
    salt_secret: bytes,
    clock: Clock,
    registry: CollectorRegistry,
    access_log: AccessLog,
    max_request_bytes: int,
    stall_limit_s: float = STALL_LIMIT_S,
) -> Inference:
    """Return the paid path over its collaborators."""
    relay = Relay(model_server, Router(replicas), meter_secret=meter_secret, salt_secret=salt_secret)
    return Inference(
        authenticator=authenticator,
        catalog=catalog,
        admission=admission,
        relay=relay,
        clock=clock,
        metrics=GatewayMetrics(registry),
        access_log=access_log,
        max_request_bytes=max_request_bytes,
        stall_limit_s=stall_limit_s,
    )


def create_app(
    *,
    authenticator: Authenticator,
    inference: Inference | None,
    routers: Sequence[APIRouter] = (),
    checks: Mapping[str, Check] | None = None,
    registry: CollectorRegistry | None = None,
    lifespan: Lifespan[Any] | None = None,
    streaming_paths: Collection[str] = (),
) -> ASGIApp:
    """Return the application. Without `inference` it serves only the control plane's `routers`.

    `lifespan` opens what the collaborators need; requests still under way are settled before it closes.
    """

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if lifespan is not None:
                await stack.enter_async_context(lifespan(app))
            if inference is not None:
                stack.push_async_callback(inference.settler.drain)
            yield

    app = create_web_app(
        title="Tokenyard gateway",
        routers=routers,
        authenticator=authenticator,
        checks=checks,
        registry=registry,
        lifespan=living,
        streaming_paths=streaming_paths,
    )
    return app if inference is None else Gateway(inference, app)


class Gateway:
    """Sends the paid endpoints past FastAPI and all middleware, which would cost more than the rest of the path."""

    def __init__(self, inference: Inference, app: ASGIApp) -> None:
        self._inference = inference
        self._app = app
        self._paid = {endpoint.path: endpoint for endpoint in ENDPOINTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._paid.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
        else:
            await self._inference(endpoint, scope, receive, send)
