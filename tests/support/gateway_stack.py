"""A whole gateway for tests: real sockets, real Valkey, real admission, and mock model servers behind it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientResponse, ClientSession
from fastapi import APIRouter
from openai.types.chat import ChatCompletionUserMessageParam
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, BudgetTable, open_buckets, principal
from support.fakes.authenticator import FixedAuthenticator
from support.fakes.gateway_ports import BASE, KeptInMemory, KnownModels, KnownReplicas
from support.fakes.model_server import MockModelServer
from support.money.live_budgets import read_budget
from support.redis_reader import read_usage
from support.servers.asgi import running
from tokenyard.clients.model_server import ModelServerClient
from tokenyard.core.budgets import wallet
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.core.replica import Replica
from tokenyard.gateway.app import Gateway, create_app
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.elsewhere.server_relay import ServerRelay
from tokenyard.gateway.idempotency.encryption import ReplyCipher
from tokenyard.gateway.idempotency.stage import IdempotencyStage
from tokenyard.gateway.idempotency.store import MAX_BYTES_OF_ONE, IdempotencyStore
from tokenyard.gateway.path.in_flight import InFlightBounds
from tokenyard.gateway.path.inference import Inference
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.ports import StoredAnswers
from tokenyard.gateway.tokenize_routes import tokenize_router
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.live_budgets import BudgetSource
from tokenyard.limits.outage_admission import OutageAdmission
from tokenyard.metering.events import Settled
from tokenyard.web.access_log import AccessLog
from tokenyard.web.edge.bounds import HttpBounds
from tokenyard.web.edge.http_protocol import BoundedConfig

CHAT = "/v1/chat/completions"
KEY = "ty-test"
OTHER_KEY = "ty-other"
OTHER = OrganizationId("org_other")
METER_SECRET = hashlib.sha256(b"meter").digest()
SALT_SECRET = hashlib.sha256(b"salt").digest()
REPLY_SECRET = hashlib.sha256(b"replies").digest()
BEARER = "replica-bearer"
WALLET_NANO = 10**12
DEADLINE_S = 10.0
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "say hello to me"}]


@dataclass
class GatewayStack:
    """The parts of one running gateway."""

    url: str
    redis: Redis
    keys: FixedAuthenticator
    models: KnownModels
    replicas: KnownReplicas
    servers: list[MockModelServer]
    registry: CollectorRegistry
    budgets: BudgetTable
    app: Gateway
    log: list[bytes] = field(default_factory=list)

    @property
    def server(self) -> MockModelServer:
        return self.servers[0]

    def limit(self, *, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        """Give the test key these limits from now on."""
        self.keys.tenants[KEY] = principal(key=Limits(requests_per_minute, tokens_per_minute))

    async def events(self, organization: OrganizationId = ORGANIZATION) -> list[Settled]:
        """Return what the gateway has reported so far."""
        return [event for event in await read_usage(self.redis, organization) if isinstance(event, Settled)]

    async def settled(self, number: int = 1, organization: OrganizationId = ORGANIZATION) -> list[Settled]:
        """Wait until so many requests are settled, which may be after their answers, and return their reports.

        More than that is an error.
        """
        await until(lambda: self._has(number, organization))
        found = await self.events(organization)
        assert len(found) == number
        return found

    async def _has(self, number: int, organization: OrganizationId) -> bool:
        return len(await self.events(organization)) >= number

    async def nothing_is_held(self, organization: OrganizationId = ORGANIZATION) -> None:
        """Wait until every hold is released, which may be after the answers."""
        await until(lambda: self._has_no_holds(organization))

    async def _has_no_holds(self, organization: OrganizationId) -> bool:
        return int(await self.redis.zcard(holds(bucket_of(organization)))) == 0

    async def post(
        self, session: ClientSession, body: dict[str, object], path: str = CHAT, *, key: str = KEY, **headers: str
    ) -> ClientResponse:
        """Send a request as a plain HTTP client would; in the names of `headers` an underscore is a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await session.post(self.url + path, json=body, headers={"authorization": f"Bearer {key}", **named})

    async def status(
        self, session: ClientSession, body: dict[str, object], path: str = CHAT, *, key: str = KEY, **headers: str
    ) -> int:
        """Do so, and return the status of an answer that was read to its end."""
        response = await self.post(session, body, path, key=key, **headers)
        await response.read()
        return response.status

    async def budget(self) -> BudgetFigures:
        return await read_budget(self.redis, bucket_of(ORGANIZATION), wallet(ORGANIZATION))


async def until(condition: Callable[[], object], *, limit_s: float = DEADLINE_S) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: it does not within `limit_s`.
    """
    async with asyncio.timeout(limit_s):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway_stack(
    redis: Redis,
    folder: Path,
    *,
    replicas: int = 1,
    stalled_s: float = 30.0,
    in_flight: InFlightBounds | None = None,
    budget_source: BudgetSource | None = None,
    max_kept_bytes: int = MAX_BYTES_OF_ONE,
    meter_secret: bytes = METER_SECRET,
    bearer: str = BEARER,
    elsewhere: ServerRelay | None = None,
    max_request_bytes: int = 100_000,
    answers: StoredAnswers | None = None,
    routers: Sequence[APIRouter] = (),
) -> AsyncIterator[GatewayStack]:
    """Run a gateway with so many mock model servers, and with the budgets of its table or of another source.

    The secrets are for model servers that a test lists itself.
    """
    async with AsyncExitStack() as stack:
        servers = [MockModelServer(meter_secret=METER_SECRET, bearer=BEARER) for _ in range(replicas)]
        urls = [await stack.enter_async_context(running(server)) for server in servers]
        listed = KnownReplicas([Replica(f"replica-{at}", BASE.id, url) for at, url in enumerate(urls)])
        keys = FixedAuthenticator({KEY: principal(), OTHER_KEY: principal(organization_id=OTHER)}, "ty-operator")
        models, budgets, log, registry = KnownModels(), BudgetTable(), list[bytes](), CollectorRegistry()
        counter = TokenCounter()
        for organization in (ORGANIZATION, OTHER):
            budgets.set(wallet(organization), WALLET_NANO)
        await open_buckets(redis)
        admission = await stack.enter_async_context(
            RedisAdmission(
                redis,
                budget_source or budgets.load,
                spool_folder=folder / "spool",
                lease_ms=30_000,
                renewal_ms=5_000,
            )
        )
        server = await stack.enter_async_context(ModelServerClient(bearer))
        inference = Inference(
            authenticator=keys,
            models=models,
            admission=OutageAdmission(admission, SystemClock(), registry),
            relay=Relay(server, listed, meter_secret=meter_secret, salt_secret=SALT_SECRET, elsewhere=elsewhere),
            answers=answers or KeptInMemory(),
            idempotency=IdempotencyStage(
                IdempotencyStore(redis, lease_ms=30_000, max_bytes=max_kept_bytes),
                ReplyCipher(REPLY_SECRET),
                renewal_ms=5_000,
            ),
            clock=SystemClock(),
            registry=registry,
            access_log=await stack.enter_async_context(AccessLog(log.append)),
            max_request_bytes=max_request_bytes,
            in_flight=in_flight,
            counter=counter,
            background_renewal_s=0.05,
        )
        served = (tokenize_router(models, counter), *routers)
        app = create_app(authenticator=keys, inference=inference, registry=registry, routers=served)
        assert isinstance(app, Gateway)
        config = BoundedConfig(
            app, HttpBounds(stalled_s=stalled_s), CollectorRegistry(), host="127.0.0.1", port=0, shutdown_s=2
        )
        url = await stack.enter_async_context(running(app, config=config))
        yield GatewayStack(url, redis, keys, models, listed, servers, registry, budgets, app, log)
