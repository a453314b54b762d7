"""Puts billing's routes together for the control plane."""

from collections.abc import Sequence

from fastapi import APIRouter
from redis.asyncio import Redis

from tokenyard.core.clock import Clock
from tokenyard.storage.database import Database
from tokenyard_billing import routes
from tokenyard_billing.invoicing.invoices import InvoiceStore
from tokenyard_billing.ports import OrganizationDirectory
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.proof.operator_store import BillingOperatorStore
from tokenyard_billing.proof.reconcile import Reconciler
from tokenyard_billing.usage import tenant_routes as usage_routes
from tokenyard_billing.usage.store import UsageStore
from tokenyard_billing.wallets.wallet import Wallet


def billing_routers(
    *,
    database: Database,
    redis: Redis,
    prices: PriceList,
    wallet: Wallet,
    organizations: OrganizationDirectory,
    clock: Clock,
) -> Sequence[APIRouter]:
    """Return all of billing's routers: tenants' usage and invoices, and the operator's."""
    invoices = InvoiceStore(database, prices, clock)
    usage = UsageStore(database)
    return (
        usage_routes.router(usage, prices, clock),
        routes.router(invoices, wallet),
        routes.admin_router(
            organizations=organizations,
            invoices=invoices,
            usage=usage,
            wallet=wallet,
            store=BillingOperatorStore(database, redis),
            reconciler=Reconciler(database, redis),
            clock=clock,
        ),
    )
