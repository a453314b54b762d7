"""Joins webhooks with settings and the audit log, to routes and loops."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from tokenyard.core.clock import Clock
from tokenyard.settings import Settings
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.encryption import Cipher
from tokenyard.web.loops import Loop
from tokenyard.webhooks.delivery.deliverer import WebhookDeliverer
from tokenyard.webhooks.delivery.metrics import WebhookMetrics
from tokenyard.webhooks.delivery.operator_store import WebhookOperatorStore
from tokenyard.webhooks.delivery.samples import SampleSender
from tokenyard.webhooks.delivery.sending import WebhookSender
from tokenyard.webhooks.history import WebhookEventStore
from tokenyard.webhooks.loops import webhook_loops
from tokenyard.webhooks.operator_routes import operator_webhook_router
from tokenyard.webhooks.ports import OrganizationFinder
from tokenyard.webhooks.store import WebhookEndpointStore
from tokenyard.webhooks.targets import WebhookTargets
from tokenyard.webhooks.tenant_routes import webhook_router


def webhook_sender(settings: Settings) -> WebhookSender:
    """Return what sends webhooks; it is to be entered."""
    return WebhookSender(_targets(settings))


def webhook_routers(
    settings: Settings,
    database: Database,
    clock: Clock,
    audit: AuditLog,
    *,
    sender: WebhookSender,
    find_organization: OrganizationFinder,
) -> Sequence[APIRouter]:
    """Return the routes of webhooks for tenants and for operators."""
    endpoints = WebhookEndpointStore(database, clock, _cipher(settings), _targets(settings), audit)
    events = WebhookEventStore(database, clock, audit)
    return (
        webhook_router(endpoints, events, SampleSender(endpoints, sender, clock)),
        operator_webhook_router(find_organization, endpoints, events),
    )


@asynccontextmanager
async def webhook_worker_loops(
    settings: Settings, database: Database, clock: Clock, audit: AuditLog, registry: CollectorRegistry
) -> AsyncIterator[list[Loop]]:
    """Yield the loops that deliver events."""
    store = WebhookOperatorStore(database, clock, _cipher(settings), audit)
    metrics = WebhookMetrics(registry)
    async with (
        webhook_sender(settings) as sender,
        WebhookDeliverer(store, sender, metrics, clock) as deliverer,
    ):
        yield webhook_loops(store, deliverer, metrics)


def _cipher(settings: Settings) -> Cipher:
    return Cipher([settings.derived_secret("webhooks")])


def _targets(settings: Settings) -> WebhookTargets:
    return WebhookTargets(settings.webhook_networks, plain_http=settings.webhook_plain_http)
