"""What a plan asks, as the ledger charges it."""

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId, PriceId, ProjectId
from tokenyard_billing.pricing.fee_prices import FeeKind, FeePrice


class PlanFee(msgspec.Struct, frozen=True):
    """The `number`-th of its kind in a period, dated in the last millisecond that it is for.

    Where that is later than the UTC month of the period's name, it is dated in the last millisecond of that month. It
    is of no project and no key.
    """

    organization: OrganizationId
    period: str
    number: int
    stated: FeePrice
    admitted_at_ms: int
    project: ProjectId = ProjectId("")
    key: ApiKeyId = ApiKeyId("")

    @property
    def charge_key(self) -> str:
        return fee_key(self.organization, self.kind, self.period, self.number)

    @property
    def kind(self) -> FeeKind:
        return self.stated.kind

    @property
    def model(self) -> str:
        return self.stated.model

    @property
    def base_model(self) -> str:
        return self.stated.model

    @property
    def price(self) -> PriceId:
        return self.stated.id


def fee_key(organization: OrganizationId, kind: FeeKind, period: str, number: int) -> str:
    """Return the key of a fee's charge: it is charged once."""
    return f"{organization}:{kind}:{period}:{number}"
