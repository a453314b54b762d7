"""Ray Serve's REST API and the replicas' own ports, as ASGI applications without Ray."""

import asyncio
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from tokenyard.core.replica import STATS_PATH, ReplicaState


@dataclass
class ServeApi:
    """Serve's controller with one application. It names a proxy where it knows of no running replica, as Serve does."""

    application: str
    replicas: dict[str, int] = field(default_factory=dict)
    """Ports by name."""
    known: bool = True
    """False just after a restart: the controller does not know the application's replicas yet."""
    proxy_port: int = 8000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(self._details())(scope, receive, send)

    def _details(self) -> dict[str, object]:
        running = self.known and bool(self.replicas)
        name = "SERVE_PROXY_ACTOR-1"
        proxy = {"ip": "127.0.0.1", "port": self.proxy_port, "name": name, "instance_id": "", "node_id": ""}
        targets = [{**proxy, "port": port, "name": f"SERVE_REPLICA::{name}"} for name, port in self.replicas.items()]
        group = {
            "targets": targets if running else [proxy],
            "route_prefix": f"/{self.application}",
            "protocol": "HTTP",
            "app_name": self.application,
        }
        status = {"status": "RUNNING" if running else "DEPLOYING", "message": ""}
        return {"applications": {self.application: status}, "target_groups": [group]}


@dataclass
class ServeProxy:
    """Serve's proxy: a request for a model without a replica waits here, and has one started."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        self.waiting += 1
        left = asyncio.ensure_future(_left(receive))
        started = asyncio.ensure_future(self.started.wait())
        try:
            await asyncio.wait([left, started], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting -= 1
            left.cancel()
            started.cancel()
        await PlainTextResponse("it is there now", 401)(scope, receive, send)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass
class ReplicaPort:
    """One replica's port: its state, and Serve's own health route beside it."""

    name: str
    model: str
    draining: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.url.path == "/-/healthz":
            return PlainTextResponse("DRAINING", 503) if self.draining else PlainTextResponse("success")
        assert request.url.path == f"/{self.model}{STATS_PATH}"
        state = ReplicaState(f"SERVE_REPLICA::{self.name}", self.model, slots=1)
        return Response(msgspec.json.encode(state), media_type="application/json")
