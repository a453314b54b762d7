"""Tenancy as the gateway wires it, over real SQL and a real Valkey."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.authenticator import KeyAuthenticator
from tokenyard.tenancy.key_versions import KeyVersions
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.loops import tenancy_loops
from tokenyard.tenancy.operator_routes import operator_router
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.tenant_routes import tenant_router
from tokenyard.tenancy.views import OrganizationView
from tokenyard.web.errors import install_error_handlers


@dataclass
class Listener:
    """Hears of new organizations; may be out of order."""

    heard: list[OrganizationId] = field(default_factory=list)
    broken: bool = False

    async def created(self, organization: OrganizationId) -> None:
        if self.broken:
            raise ConnectionError("billing is away")
        self.heard.append(organization)


@dataclass
class Tenancy:
    """Everything of tenancy, and two HTTP clients: the operator's and nobody's."""

    database: Database
    redis: Redis
    clock: FrozenClock
    store: TenancyStore
    operator_store: TenancyOperatorStore
    hasher: KeyHasher
    authenticator: KeyAuthenticator
    versions: KeyVersions
    keys: ApiKeys
    listener: Listener
    organizations: Organizations
    http: httpx2.AsyncClient
    operator_secret: str = ""

    async def as_operator(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        return await self.http.request(method, path, json=body, headers=bearer(self.operator_secret))

    async def new_tenant(self, slug: str) -> tuple[OrganizationView, str]:
        organization = await self.organizations.create(name=slug.title(), slug=slug, actor=BOOTSTRAP)
        project = organization.default_project_id
        _, secret = await self.keys.create(organization.id, project, name="first", actor=BOOTSTRAP)
        return organization, secret

    def another_process(self) -> KeyAuthenticator:
        """An authenticator whose cache nobody tells anything."""
        return KeyAuthenticator(self.operator_store, self.hasher, self.clock, now=self.clock)

    async def run_loops_once(self) -> None:
        """One round of the worker's loops."""
        for loop in tenancy_loops(
            organizations=self.organizations, store=self.operator_store, versions=self.versions, clock=self.clock
        ):
            await loop.step()


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
async def tenancy(database: Database, redis: Redis) -> AsyncIterator[Tenancy]:
    clock = FrozenClock()
    hasher = KeyHasher([Pepper(1, b"p" * 32)])
    store, operator_store = TenancyStore(database, clock), TenancyOperatorStore(database, clock)
    authenticator = KeyAuthenticator(operator_store, hasher, clock, now=clock)
    versions = KeyVersions(redis)
    keys = ApiKeys(
        store=store,
        operator_store=operator_store,
        versions=versions,
        hasher=hasher,
        clock=clock,
        authenticator=authenticator,
    )
    listener = Listener()
    organizations = Organizations(operator_store, listener.created)
    app = FastAPI()
    app.state.authenticator = authenticator
    install_error_handlers(app)
    app.include_router(operator_router(organizations, store, operator_store, keys))
    app.include_router(tenant_router(store, keys))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
        made = Tenancy(
            database, redis, clock, store, operator_store, hasher, authenticator, versions, keys, listener,
            organizations, http,
        )  # fmt: skip
        _, made.operator_secret = await keys.create_operator(name="operator", actor=BOOTSTRAP)
        yield made
