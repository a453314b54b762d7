"""What the platform's API answers of requests, alarms and the books."""

from collections.abc import Sequence

from tokenyard.clients.platform_api.shapes import ApiObject, Json


class ReportInfo(ApiObject):
    """What one witness counted of an attempt."""

    attempt: str
    witness: str
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    replica: str | None = None
    at_ms: int


class WasteInfo(ApiObject):
    """Usage that nobody pays for."""

    prompt_tokens: int
    completion_tokens: int
    amount: int


class AttemptInfo(ApiObject):
    id: str
    gateway: ReportInfo | None = None
    replica: ReportInfo | None = None
    hold_expired: ReportInfo | None = None
    waste: WasteInfo | None = None

    @property
    def reports(self) -> list[ReportInfo]:
        return [report for report in (self.gateway, self.replica, self.hold_expired) if report is not None]


class ChargeInfo(ApiObject):
    organization: str
    project: str
    key: str
    kind: str
    endpoint: str | None = None
    model: str
    price: str
    rule: str
    period: str
    trained_tokens: int
    amount: int
    admitted_at_ms: int
    charged_at_ms: int
    credit_note: str | None = None


class EntryInfo(ApiObject):
    transaction: str
    account: str
    amount: int


class TransactionInfo(ApiObject):
    posted_at_ms: int
    entries: list[EntryInfo]


class AlarmInfo(ApiObject):
    kind: str
    subject: str
    message: str
    at_ms: int


class RequestInfo(ApiObject):
    id: str
    state: str
    attempts: list[AttemptInfo]
    charge: ChargeInfo | None = None
    corrections: Sequence[ChargeInfo] = ()
    journal: list[TransactionInfo]
    invoice: str | None = None
    alarms: Sequence[AlarmInfo] = ()


class DifferenceInfo(ApiObject):
    name: str
    subject: str
    detail: str
    broken: bool


class ReconciliationInfo(ApiObject):
    ok: bool
    differences: list[DifferenceInfo]
    tokens: Json


class SealInfo(ApiObject):
    """The seal of a UTC day."""

    id: str
    day: str
    hash: str
    organizations: int
    sealed_at_ms: int


class SealDifferenceInfo(ApiObject):
    name: str
    day: str
    organization: str | None = None
    detail: str


class SealVerificationInfo(ApiObject):
    """`through` is the last day that was looked at; `more`: days behind it are left."""

    days: int
    rows: int
    through: str | None = None
    more: bool
    difference: SealDifferenceInfo | None = None
