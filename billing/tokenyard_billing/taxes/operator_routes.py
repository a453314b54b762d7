"""Rates of tax, and where an organization pays it, for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.taxes.operator_store import TaxRateOperatorStore
from tokenyard_billing.taxes.profiles import TaxProfiles
from tokenyard_billing.taxes.views import NewTaxRate, TaxProfileBody, TaxProfileView, TaxRateView
from tokenyard_billing.views import ListSize


def router(find: OrganizationLookup, rates: TaxRateOperatorStore, profiles: TaxProfiles) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])
    _rate_routes(routes, rates)
    _profile_routes(routes, find, profiles)
    return routes


def _rate_routes(routes: APIRouter, store: TaxRateOperatorStore) -> None:
    @routes.get("/tax_rates")
    async def tax_rates(_operator: CurrentOperator, after: After = None, limit: ListSize = 100) -> Page[TaxRateView]:
        """List the published rates of tax, the last to start first."""
        found = await store.rates(after=after, limit=limit + 1)
        return Page[TaxRateView].of([TaxRateView.model_validate(one) for one in found], limit)

    @routes.post("/tax_rates")
    async def publish_tax_rate(operator: CurrentOperator, body: NewTaxRate) -> TaxRateView:
        """Publish what a jurisdiction takes, until its next rate; it cannot be changed or withdrawn afterwards.

        Usage is taxed by the rate that is in force at the end of its period, line by line, each rounded half up to the
        nano-dollar. Drafts are drawn again; what is issued stays. The same rate again changes nothing.
        """
        found = await store.publish(body.jurisdiction, body.tax(), body.effective_from_ms, actor=operator.key)
        return TaxRateView.model_validate(found)


def _profile_routes(routes: APIRouter, find: OrganizationLookup, profiles: TaxProfiles) -> None:
    @routes.get("/organizations/{organization}/tax")
    async def tax_profile(_operator: CurrentOperator, organization: str) -> TaxProfileView:
        """Tell where an organization pays tax, or why it pays none."""
        return TaxProfileView.model_validate(await profiles.get(await find(organization)))

    @routes.put("/organizations/{organization}/tax")
    async def change_tax_profile(operator: CurrentOperator, organization: str, body: TaxProfileBody) -> TaxProfileView:
        """State where an organization pays tax, for all of its open periods; invoices that are issued stay."""
        owner = await find(organization)
        return TaxProfileView.model_validate(await profiles.change(owner, body.profile(), actor=operator.key))
