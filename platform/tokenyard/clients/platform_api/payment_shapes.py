"""What the API tells of payments through a provider, and of dunning."""

from tokenyard.clients.platform_api.shapes import ApiObject


class AutomaticTopUpInfo(ApiObject):
    """Credit that is bought by itself: `amount` whenever less than `threshold` is left. Amounts are nano-dollars."""

    organization: str
    threshold: int
    amount: int
    month_limit: int
    failure_code: str
    changed_at_ms: int


class PaymentInfo(ApiObject):
    """Money that the provider is to take: of an invoice, or for credit. Amounts are nano-dollars."""

    id: str
    organization: str
    invoice: str | None
    amount: int
    settled: int
    credited: int
    charge: str | None
    state: str
    failure_code: str
    created_at_ms: int


class DunningInfo(ApiObject):
    """How far the overdue invoice `id` has come; `blocks`: it keeps its organization blocked."""

    id: str
    organization: str
    steps: int
    stepped_at_ms: int
    blocks: bool


class DunningExceptionInfo(ApiObject):
    """What an operator stated of the organization `id`."""

    id: str
    exempt: bool
    paused_until_ms: int
    reason: str
