"""What a tenant has left."""

from fastapi import APIRouter

from tokenyard.web.auth import BillingTenant
from tokenyard_billing.wallets.store import Wallet
from tokenyard_billing.wallets.views import BalanceView


def router(wallet: Wallet) -> APIRouter:
    routes = APIRouter(prefix="/v1/organization", tags=["billing"])

    @routes.get("/balance")
    async def balance(tenant: BillingTenant) -> BalanceView:
        return BalanceView.model_validate(await wallet.balance(tenant.organization))

    return routes
