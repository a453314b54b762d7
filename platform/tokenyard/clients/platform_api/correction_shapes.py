"""What the platform's API answers of corrections and credit notes."""

from tokenyard.clients.platform_api.shapes import ApiObject


class AffectedInfo(ApiObject):
    billed_in: str
    usage_period: str
    model: str
    price: str
    charges: int
    amount: int
    lowered: int
    raised: int
    invoice_issued: bool


class PreviewInfo(ApiObject):
    """What a correction would change; nano-dollars."""

    charges: int
    lowered: int
    raised: int
    lines: list[AffectedInfo]


class CorrectionInfo(ApiObject):
    """`card` None: the charges were reversed."""

    id: str
    organization: str
    state: str
    card: str | None
    reason: str
    requested_at_ms: int
    charges: int
    lowered: int
    raised: int


class CreditNoteInfo(ApiObject):
    """`total` = `lowered` (its invoice claims less) + `credited` (had been paid, is credit again)."""

    id: str
    organization: str
    number: str
    invoice: str
    correction: str
    reason: str
    issued_at_ms: int
    total: int
    lowered: int
    credited: int
