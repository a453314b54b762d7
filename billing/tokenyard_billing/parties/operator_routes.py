"""Parties for operators: organizations' billing details, and who issues the invoices."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.parties.operator_store import IssuerOperatorStore
from tokenyard_billing.parties.party import Buyer, Seller
from tokenyard_billing.parties.store import BillingDetailsStore
from tokenyard_billing.parties.views import BillingDetailsView, IssuerView
from tokenyard_billing.ports import OrganizationLookup


def router(find: OrganizationLookup, store: BillingDetailsStore, issuers: IssuerOperatorStore) -> APIRouter:
    """Return the routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/organizations/{organization}/billing_details")
    async def billing_details(_operator: CurrentOperator, organization: str) -> BillingDetailsView:
        return BillingDetailsView.model_validate(await store.get(await find(organization)))

    @routes.put("/organizations/{organization}/billing_details")
    async def replace(operator: CurrentOperator, organization: str, body: Buyer) -> BillingDetailsView:
        """State how invoices from now on name the organization; what is left out is empty."""
        changed = await store.replace(await find(organization), body, actor=operator.key)
        return BillingDetailsView.model_validate(changed)

    @routes.get("/issuer")
    async def issuer(_operator: CurrentOperator) -> IssuerView:
        return IssuerView.model_validate(await issuers.get())

    @routes.put("/issuer")
    async def replace_issuer(operator: CurrentOperator, body: Seller) -> IssuerView:
        """State who issues invoices from now on, and how these are paid; what is left out is empty."""
        return IssuerView.model_validate(await issuers.replace(body, actor=operator.key))

    return routes
