"""Billing's routes on a real socket, for one tenant and one operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from fastapi import FastAPI
from redis.asyncio import Redis

from support.billing.stand import ACME, GLOBEX, KEY, PROJECT, TERMS, FixedJobs, budget_outbox
from support.fakes.authenticator import FixedAuthenticator
from support.fakes.rate_cards import SHIPPED_CARDS
from support.servers.asgi import running
from tokenyard.core.clock import Clock, SystemClock
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.core.principal import Principal
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.storage.database import Database
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.store import record
from tokenyard.web.errors import install_error_handlers
from tokenyard.webhooks.events import write_event
from tokenyard_billing.api import billing_routers
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.wallets.store import Wallet

TENANT = "ty-acme"
OTHER_TENANT = "ty-globex"
OPERATOR = "ty-operator"


async def find_organization(reference: str) -> OrganizationId:
    """Know two organizations; slugs are the ids without `org_`."""
    for known in (ACME, GLOBEX):
        if reference in {known, known.removeprefix("org_")}:
            return known
    raise NotFound(f"No organization {reference}.")


@dataclass(frozen=True)
class Api:
    """Calls routes; answers (status, JSON)."""

    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, key: str = OPERATOR, **params: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(self.url + path, params=params, headers=_bearer(key)) as answer:
            return answer.status, await answer.json()

    async def put(self, path: str, body: object, key: str = OPERATOR) -> tuple[int, dict[str, Any]]:
        async with self.session.put(self.url + path, json=body, headers=_bearer(key)) as answer:
            return answer.status, await answer.json()

    async def content(self, path: str, key: str = OPERATOR) -> tuple[int, str, bytes]:
        """Return status, content type and body of an answer that may be no JSON."""
        async with self.session.get(self.url + path, headers=_bearer(key)) as answer:
            return answer.status, answer.content_type, await answer.read()

    async def delete(self, path: str, key: str = OPERATOR) -> tuple[int, dict[str, Any]]:
        async with self.session.delete(self.url + path, headers=_bearer(key)) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: object = None, key: str = OPERATOR) -> tuple[int, dict[str, Any]]:
        async with self.session.post(self.url + path, json=body, headers=_bearer(key)) as answer:
            return answer.status, await answer.json()


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@asynccontextmanager
async def billing_api(
    database: Database,
    redis: Redis,
    prices: PriceList | None = None,
    *,
    provider: PaymentProvider | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Api]:
    app = FastAPI()
    install_error_handlers(app)
    tenants = {TENANT: Principal(ACME, PROJECT, KEY, 1), OTHER_TENANT: Principal(GLOBEX, PROJECT, KEY, 1)}
    app.state.authenticator = FixedAuthenticator(tenants, OPERATOR)
    clock = clock or SystemClock()
    outbox = budget_outbox(database, redis)
    for router in billing_routers(
        database=database,
        redis=redis,
        prices=prices or PriceList(SHIPPED_CARDS),
        outbox=outbox,
        wallet=Wallet(database, outbox, write_event, clock),
        find_organization=find_organization,
        live_budgets=RedisBudgetReader(redis),
        jobs=FixedJobs(),
        audit=record,
        events=write_event,
        clock=clock,
        blocking=OrganizationBlocks(),
        provider=provider,
        issuer=TERMS.issuer,
    ):
        app.include_router(router)
    async with running(app) as url, aiohttp.ClientSession() as session:
        yield Api(url, session)
