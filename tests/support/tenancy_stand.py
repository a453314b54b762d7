"""Tenancy as the gateway wires it, over real SQL and a real Valkey, and other gateway processes beside it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
from fastapi import FastAPI
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from support.gateway_stack import until
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, revision
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.storage.change_feed import ChangeFeed, Listener
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.changes import TOPIC, TenancyCarrier
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.loops import tenancy_loops
from tokenyard.tenancy.operator_routes import operator_router
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.permissions.store import PermissionStore
from tokenyard.tenancy.permissions.tenant_routes import permission_router
from tokenyard.tenancy.plans.operator_routes import plans_router
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.tenant_routes import project_models_router
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.tenant_routes import tenant_router
from tokenyard.tenancy.views import OrganizationView
from tokenyard.web.errors import install_error_handlers

LOST_REDIS = "redis://127.0.0.1:1/0"
"""Nobody listens there."""


@dataclass
class FineTunedModels:
    """The catalog's fine-tuned models: proper names by every name, for each organization."""

    names: dict[OrganizationId, dict[str, str]] = field(default_factory=dict)

    async def fine_tunes(self, organization: OrganizationId) -> Mapping[str, str]:
        return self.names.get(organization, {})


@dataclass
class BillingEar:
    """Learns of new organizations; may be out of order."""

    heard: list[OrganizationId] = field(default_factory=list)
    broken: bool = False

    async def created(self, organization: OrganizationId) -> None:
        if self.broken:
            raise ConnectionError("billing is away")
        self.heard.append(organization)


class OtherProcess:
    """Another gateway process: a cache of keys that follows the change feed. `told` is what the feed brought it."""

    def __init__(self, authenticator: KeyAuthenticator, redis: Redis) -> None:
        self.authenticator = authenticator
        self.told: list[tuple[str, str | None]] = []
        listeners = authenticator.listeners()
        self._kinds = set(listeners)
        self._feed = ChangeFeed(redis, {kind: self._noting(kind, listener) for kind, listener in listeners.items()})

    async def __aenter__(self) -> Self:
        await self._feed.__aenter__()
        await until(lambda: self.times_lost() == 1)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._feed.__aexit__(*raised)

    async def is_told(self, subject: str, times: int = 1) -> None:
        """Wait until the feed has brought `subject` so often."""
        await until(lambda: [told for _, told in self.told].count(subject) >= times)

    def times_lost(self) -> int:
        """How often every listener has been told that anything may have changed; once at the start."""
        return min(self.told.count((kind, None)) for kind in self._kinds)

    def _noting(self, kind: str, listener: Listener) -> Listener:
        async def noted(subject: str | None) -> None:
            await listener(subject)
            self.told.append((kind, subject))

        return noted


@dataclass
class Tenancy:
    """Everything of tenancy in one gateway process, and an HTTP client."""

    database: Database
    redis: Redis
    clock: FrozenClock
    store: TenancyStore
    operator_store: TenancyOperatorStore
    hasher: KeyHasher
    authenticator: KeyAuthenticator
    outbox: TransactionalOutbox
    push: TenancyPush
    keys: ApiKeys
    billing: BillingEar
    organizations: Organizations
    http: httpx2.AsyncClient
    fine_tuned: FineTunedModels
    operator_secret: str = ""
    authenticators: list[KeyAuthenticator] = field(default_factory=list)

    async def as_operator(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        return await self.http.request(method, path, json=body, headers=bearer(self.operator_secret))

    async def new_tenant(self, slug: str) -> tuple[OrganizationView, str]:
        organization = await self.organizations.create(name=slug.title(), slug=slug, actor=BOOTSTRAP)
        project = organization.default_project_id
        _, secret = await self.keys.create(organization.id, project, name="first", actor=BOOTSTRAP)
        return organization, secret

    def deaf_process(self) -> KeyAuthenticator:
        """An authenticator whose cache nobody tells anything."""
        made = KeyAuthenticator(self.operator_store, self.hasher, self.clock, now=self.clock)
        self.authenticators.append(made)
        return made

    def other_process(self, redis: Redis | None = None) -> OtherProcess:
        return OtherProcess(self.deaf_process(), redis or self.redis)

    def outbox_on(self, redis: Redis) -> TransactionalOutbox:
        """The outbox of another process, or one that reaches another Redis."""
        return tenancy_outbox(self.database, redis, self.clock)

    async def revision(self, organization: OrganizationId) -> int:
        """Return what Redis knows; 0 is nothing."""
        return int(await self.redis.get(revision(bucket_of(organization), organization)) or 0)

    async def run_loops_once(self) -> None:
        """One round of the worker's loops, a moment later."""
        self.clock.advance(1)
        for loop in (*tenancy_loops(self.organizations), *self.outbox.loops()):
            await loop.step()


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def tenancy_outbox(database: Database, redis: Redis, clock: FrozenClock) -> TransactionalOutbox:
    """The outbox that makes changes of tenancy known, as `bootstrap` makes it."""
    carrier = TenancyCarrier(redis, RedisRevisions(redis))
    return TransactionalOutbox(database, redis, clock, {TOPIC: carrier.carry})


@asynccontextmanager
async def tenancy_stand(database: Database, redis: Redis) -> AsyncIterator[Tenancy]:
    clock = FrozenClock()
    hasher = KeyHasher([Pepper(1, b"p" * 32)])
    store, operator_store = TenancyStore(database, clock), TenancyOperatorStore(database, clock)
    authenticator = KeyAuthenticator(operator_store, hasher, clock, now=clock)
    outbox = tenancy_outbox(database, redis, clock)
    push = TenancyPush(authenticator, outbox)
    keys = ApiKeys(store=store, operator_store=operator_store, push=push, hasher=hasher, clock=clock)
    billing = BillingEar()
    organizations = Organizations(operator_store, billing.created)
    app = FastAPI()
    app.state.authenticator = authenticator
    install_error_handlers(app)
    app.include_router(operator_router(organizations, store, operator_store, keys, push))
    app.include_router(plans_router(PlanOperatorStore(database, clock), push))
    app.include_router(tenant_router(store, keys, push))
    app.include_router(project_models_router(store, push))
    fine_tuned = FineTunedModels()
    app.include_router(permission_router(PermissionStore(database, clock), fine_tuned, push))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
        made = Tenancy(
            database, redis, clock, store, operator_store, hasher, authenticator, outbox, push, keys, billing,
            organizations, http, fine_tuned,
        )  # fmt: skip
        _, made.operator_secret = await keys.create_operator(name="operator", actor=BOOTSTRAP)
        made.authenticators.append(authenticator)
        yield made
        # What is looked up in the background must not find the database closed.
        await until(lambda: not any(one._cache._loads for one in made.authenticators))
