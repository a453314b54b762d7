"""Webhooks on a real socket and a real database, and workers that deliver when a test says so."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import select

from support.fakes.authenticator import FixedAuthenticator
from support.fakes.clock import FrozenClock
from support.servers.asgi import running
from support.webhooks.receiver import WebhookReceiver, receiving
from tokenyard.bootstrap.webhooks import webhook_routers
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard.storage.encryption import Cipher
from tokenyard.tenancy.store import record
from tokenyard.tenancy.tables import AuditRow
from tokenyard.web.app import create_app
from tokenyard.webhooks.delivery.deliverer import WebhookDeliverer
from tokenyard.webhooks.delivery.metrics import WebhookMetrics
from tokenyard.webhooks.delivery.operator_store import WebhookOperatorStore
from tokenyard.webhooks.delivery.sending import WebhookSender
from tokenyard.webhooks.events import write_event
from tokenyard.webhooks.tables import WebhookDeliveryRow, WebhookEventRow
from tokenyard.webhooks.targets import WebhookTargets

ACME, GLOBEX = OrganizationId("org_acme"), OrganizationId("org_globex")
SUCCEEDED: Final = "fine_tuning.job.succeeded"
FAILED: Final = "fine_tuning.job.failed"
LIMIT_S = 0.5
"""What an attempt may take here."""


def caller(organization: OrganizationId) -> Principal:
    return Principal(organization, ProjectId("proj_1"), ApiKeyId(f"key_{organization}"), 1)


async def find_organization(reference: str) -> OrganizationId:
    if reference not in (ACME, GLOBEX):
        raise NotFound(f"No organization {reference}.")
    return OrganizationId(reference)


@dataclass
class WebhooksStand:
    """`acme` and `globex` are clients of two organizations."""

    database: Database
    settings: Settings
    clock: FrozenClock
    receiver: WebhookReceiver
    url: str
    acme: AsyncOpenAI
    globex: AsyncOpenAI
    http: aiohttp.ClientSession
    registry: CollectorRegistry
    worker: WebhookDeliverer

    @property
    def store(self) -> WebhookOperatorStore:
        cipher = Cipher([self.settings.derived_secret("webhooks")])
        return WebhookOperatorStore(self.database, self.clock, cipher, record, chance=lambda: 0.0)

    async def endpoint(self, path: str = "/hook", *types: str, client: AsyncOpenAI | None = None) -> Any:
        """Make an endpoint at a path of the receiver, which wants everything where no types are named."""
        wanted: Any = list(types) or ["*"]
        return await (client or self.acme).webhooks.create(
            name=f"At {path}", url=self.receiver.url + path, event_types=wanted
        )

    async def tell(
        self, kind: str = SUCCEEDED, organization: OrganizationId = ACME, data: Mapping[str, object] | None = None
    ) -> str:
        """Write an event, a moment after the one before, and return its id."""
        self.clock.advance(0.001)
        async with self.database.transaction() as session:
            await write_event(session, organization, kind, data or {"id": "ftjob-1"}, at_ms=self.clock.now_ms())
        async with self.database.reading() as session:
            query = select(WebhookEventRow.id).order_by(WebhookEventRow.at_ms.desc())
            return str(await session.scalar(query.limit(1)))

    async def round(self) -> None:
        """Send what is due now, and wait for it."""
        await self.worker.step()
        await self.worker.finish()

    async def after(self, seconds: float) -> None:
        """Let time pass, and send what is due then."""
        self.clock.advance(seconds)
        await self.round()

    async def deliveries(self) -> list[WebhookDeliveryRow]:
        async with self.database.reading() as session:
            return list(await session.scalars(select(WebhookDeliveryRow).order_by(WebhookDeliveryRow.id)))

    async def audited(self) -> list[AuditRow]:
        async with self.database.reading() as session:
            return list(await session.scalars(select(AuditRow).order_by(AuditRow.id)))

    async def call(
        self, method: str, path: str, body: object = None, key: str = "ty-acme", **query: str | int
    ) -> tuple[int, dict[str, Any]]:
        """Call a route that the SDK has no method for; return status and JSON."""
        headers = {"authorization": f"Bearer {key}"}
        async with self.http.request(method, self.url + path, json=body, headers=headers, params=query) as reply:
            return reply.status, await reply.json()


@asynccontextmanager
async def webhooks_stand(database: Database, folder: Path, **allowed: Any) -> AsyncIterator[WebhooksStand]:
    """The clock begins now: who verifies signatures has a clock of its own. `allowed` are settings of targets."""
    rules = {"webhook_networks": ("127.0.0.0/8",), "webhook_plain_http": True, **allowed}
    settings = Settings(data_dir=folder, secret=SecretStr("s" * 32), **rules)
    clock, registry = FrozenClock(time.time()), CollectorRegistry()
    targets = WebhookTargets(settings.webhook_networks, plain_http=settings.webhook_plain_http)
    async with (
        receiving() as receiver,
        WebhookSender(targets, limit_s=LIMIT_S) as sender,
        aiohttp.ClientSession() as http,
    ):
        routers = webhook_routers(settings, database, clock, record, sender=sender, find_organization=find_organization)
        tenants = {"ty-acme": caller(ACME), "ty-globex": caller(GLOBEX)}
        app = create_app(title="Test", routers=routers, authenticator=FixedAuthenticator(tenants, "ty-operator"))
        async with (
            running(app) as url,
            AsyncOpenAI(api_key="ty-acme", base_url=f"{url}/v1", max_retries=0) as acme,
        ):
            globex = acme.with_options(api_key="ty-globex")
            store = WebhookOperatorStore(
                database, clock, Cipher([settings.derived_secret("webhooks")]), record, chance=lambda: 0.0
            )
            async with WebhookDeliverer(store, sender, WebhookMetrics(registry), clock) as worker:
                yield WebhooksStand(database, settings, clock, receiver, url, acme, globex, http, registry, worker)
