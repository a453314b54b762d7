"""Any number of real gateway processes on one Valkey and one database, with a mock replica behind them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from pydantic import SecretStr

from support.fakes.admission_requests import open_buckets
from support.fakes.model_server import MockModelServer, Sent
from support.gateway_stack import until
from support.servers.asgi import running
from support.servers.free_ports import free_ports
from support.servers.installation import running_process
from support.servers.valkey import Valkey
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.bootstrap.operator_key import first_admin_key
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.core.replica import Replica
from tokenyard.metering.events import ReplicaReported
from tokenyard.metering.stream import report_outbox
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of

MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
REQUEST_LIMIT_S = 60.0
REPORTS_AT_ONCE = 16  # well below the connections of one client of Redis


@dataclass
class GatewayFleet:
    """The gateways, counted from 0, and what they stand on.

    There is no worker: `prepare_redis` and `foundation.outbox.step` do what its loops would.
    """

    urls: Sequence[str]
    foundation: Foundation
    valkey: Valkey
    server: MockModelServer
    server_url: str
    admin_key: str
    http: ClientSession

    def process(self, gateway: int) -> psutil.Process:
        port = urlsplit(self.urls[gateway]).port
        (found,) = {
            one.pid
            for one in psutil.net_connections("tcp")
            if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN
        }
        return psutil.Process(found)

    async def call(
        self, gateway: int, method: str, path: str, key: str, body: Mapping[str, object] | None = None
    ) -> ClientResponse:
        """Send a request to one gateway and read all of the answer."""
        headers = {"authorization": f"Bearer {key}"}
        response = await self.http.request(method, self.urls[gateway] + path, json=body, headers=headers)
        await response.read()
        return response

    async def chat(self, gateway: int, key: str, *, max_tokens: int = 8) -> ClientResponse:
        """Send a request that costs money."""
        messages = [{"role": "user", "content": "say hello to me"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": max_tokens}
        return await self.call(gateway, "POST", "/v1/chat/completions", key, body)

    async def admin(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, gateway: int = 0
    ) -> dict[str, Any]:
        """Do what an operator does, through one gateway; return the answer's JSON."""
        response = await self.call(gateway, method, path, self.admin_key, body)
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found

    async def new_tenant(self, slug: str) -> str:
        """Make an organization with its opening credit; return a key of it."""
        await self.admin("POST", "/admin/organizations", {"name": slug, "slug": slug})
        made = await self.admin("POST", f"/admin/organizations/{slug}/api_keys", {"name": "test"})
        return str(made["value"])

    async def prepare_redis(self) -> None:
        """Tell an empty Redis that budgets may be used, and where the replicas are; wait until every gateway knows."""
        replicas = tuple(
            Replica(name=f"mock-{model.id}", model=model.id, url=self.server_url)
            for model in self.foundation.base_models.all()
            if model.server is None
        )
        snapshot = ReplicaSnapshot(replicas, at_ms=int(time.time() * 1000), complete=True)
        await ReplicaRegistry(self.foundation.redis).publish(snapshot)
        await open_buckets(self.foundation.redis)
        await until(self._all_are_ready)

    async def _all_are_ready(self) -> bool:
        found = [await self.call(gateway, "GET", "/ready", "") for gateway in range(len(self.urls))]
        checks = [(await response.json())["checks"] for response in found]
        return all(set(states.values()) == {"ok"} for states in checks)


@asynccontextmanager
async def running_gateways(
    folder: Path, number: int, *, database_url: str = "", **more: Any
) -> AsyncIterator[GatewayFleet]:
    """Run so many gateways, on SQLite unless `database_url` leads to an empty database; `more` are further settings."""
    valkey_port, *ports = free_ports(number + 1)
    settings = Settings(
        data_dir=folder, valkey_port=valkey_port, database_url=database_url, secret=SecretStr("s" * 64), **more
    )
    valkey = Valkey(folder, valkey_port)
    async with AsyncExitStack() as stack:
        stack.callback(valkey.kill)
        valkey.start()
        await asyncio.to_thread(bring_up_to_date, settings)
        admin_key = await first_admin_key(settings)
        assert admin_key is not None
        urls = await asyncio.gather(*(_started(settings, port, stack) for port in ports))
        foundation = await stack.enter_async_context(Foundation.opened(settings))
        await stack.enter_async_context(foundation.price_book)
        await stack.enter_async_context(foundation.model_files)

        reporting = asyncio.Semaphore(REPORTS_AT_ONCE)
        reports = report_outbox(foundation.redis, folder / "reports")
        reports.start()
        stack.push_async_callback(reports.close)

        async def report(sent: Sent) -> None:
            event = ReplicaReported(sent.claims, sent.usage, "mock", sent.finished, foundation.clock.now_ms())
            async with reporting:
                await reports.send(event)

        server = MockModelServer(
            meter_secret=settings.derived_secret("meter"),
            bearer=settings.derived_secret("replica-bearer").hex(),
            witness=report,
        )
        fleet = GatewayFleet(
            urls=urls,
            foundation=foundation,
            valkey=valkey,
            server=server,
            server_url=await stack.enter_async_context(running(server)),
            admin_key=admin_key,
            http=await stack.enter_async_context(ClientSession(timeout=ClientTimeout(REQUEST_LIMIT_S))),
        )
        await fleet.prepare_redis()
        await foundation.outbox.step()  # of the rate cards, or it is late when a test takes its time
        yield fleet


async def _started(settings: Settings, port: int, stack: AsyncExitStack) -> str:
    environment = environment_of(settings) | {"TOKENYARD_GATEWAY_PORT": str(port)}
    process = running_process("gateway", environment, port, settings.data_dir)
    url = await asyncio.to_thread(process.__enter__)
    stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)
    return url
