"""Parties as the API shows them."""

from typing import Literal

from tokenyard_billing.parties.party import Buyer, Seller
from tokenyard_billing.views import View


class BillingDetailsView(View):
    """How an organization is named on its invoices; `details` is null where it has not been stated."""

    object: Literal["organization.billing_details"] = "organization.billing_details"
    organization: str
    details: Buyer | None
    changed_at_ms: int | None


class IssuerView(View):
    """Who issues invoices: `issuer` is the name in the settings, which counts their numbers."""

    object: Literal["issuer"] = "issuer"
    issuer: str
    details: Seller | None
    changed_at_ms: int | None
