"""Taxes as the API takes and shows them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from tokenyard.core.money import InexactAmount, percent_text, rate_from_percent
from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.invoice_tables import TAX_NAME_LENGTH
from tokenyard_billing.taxes.amounts import LineTax
from tokenyard_billing.taxes.terms import Exemption, TaxProfile
from tokenyard_billing.views import View, of

Jurisdiction = Annotated[
    str, Field(pattern="^[A-Z]{2}(-[A-Z0-9]{1,3})?$", description="ISO 3166: DE, or US-CA. A region's rate goes first.")
]
Percent = Annotated[str, BeforeValidator(percent_text)]
"""Millionths as text: `Annotated[Percent, of("rate")]`."""
OptionalName = Annotated[str | None, BeforeValidator(lambda name: name or None)]
"""What SQL has as an empty text is null."""
_YEAR_9999_MS = 253_370_764_800_000


def _percent(text: str) -> str:
    try:
        return percent_text(rate_from_percent(text))
    except InexactAmount as error:
        raise ValueError(str(error)) from None


StatedPercent = Annotated[
    str, Field(max_length=32, description="Such as 19 or 8.875; at most four decimals."), AfterValidator(_percent)
]


class NewTaxRate(BaseModel, extra="forbid"):
    """`POST /admin/tax_rates`. Without `effective_from_ms` it holds from now on.

    With `inclusive`, prices hold the tax already.
    """

    jurisdiction: Jurisdiction
    name: str = Field(min_length=1, max_length=TAX_NAME_LENGTH, pattern=NO_NUL, description="As invoices name it: VAT.")
    percent: StatedPercent
    inclusive: bool = False
    effective_from_ms: int | None = Field(default=None, ge=0, lt=_YEAR_9999_MS)

    def tax(self) -> LineTax:
        return LineTax(self.name, rate_from_percent(self.percent), self.inclusive)


class TaxRateView(View, Identified):
    """What a jurisdiction takes from a moment on; `rate` is in millionths."""

    object: Literal["tax_rate"] = "tax_rate"
    jurisdiction: str
    name: str
    rate: int
    percent: Annotated[Percent, of("rate")]
    inclusive: bool
    effective_from_ms: int
    published_at_ms: int
    published_by: str


class TaxProfileBody(BaseModel, extra="forbid"):
    """Null is no jurisdiction, and no tax. `reason` is that of an exemption: a certificate's number, or the like."""

    jurisdiction: Jurisdiction | None
    exemption: Exemption = "none"
    reason: str = Field(default="", max_length=500, pattern=NO_NUL)

    def profile(self) -> TaxProfile:
        return TaxProfile(self.jurisdiction or "", self.exemption, self.reason)


class TaxProfileView(View):
    """Where an organization pays tax for what it uses in `since_period` and later; null: nothing was ever stated."""

    object: Literal["organization.tax"] = "organization.tax"
    organization: str
    jurisdiction: Annotated[OptionalName, of("profile", "jurisdiction")]
    exemption: Annotated[Exemption, of("profile", "exemption")]
    reason: Annotated[str, of("profile", "reason")]
    since_period: str | None
