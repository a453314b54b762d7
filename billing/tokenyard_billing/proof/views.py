"""A request's story, alarms, dead letters and the outcome of all checks, as the API shows them."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from tokenyard.web.pages import Identified
from tokenyard_billing.charging.reports import ReportWitness
from tokenyard_billing.views import Dollars, View, of

_Names = Annotated[list[str], BeforeValidator(json.loads)]


class AlarmView(View, Identified):
    """Something an operator must look at; `subject` is a request, attempt, job, price or stream entry."""

    kind: str
    subject: str
    organization: str | None
    message: str
    at_ms: int


class DeadLetterView(View, Identified):
    """An event that could not be taken in."""

    stream: str
    entry: str
    event: str
    reason: str
    deliveries: int
    at_ms: int


class DeadLetterResent(BaseModel):
    """A dead letter that is back on its stream."""

    object: Literal["dead_letter"] = "dead_letter"
    stream: str
    entry: str
    sent_again: Literal[True] = True


class ReportView(View):
    """What one witness said of an attempt; `at_ms` is by its own clock, `received_at_ms` by Redis."""

    attempt: str
    witness: ReportWitness
    outcome: str
    prompt_tokens: Annotated[int, of("usage", "prompt_tokens")]
    cached_tokens: Annotated[int, of("usage", "cached_tokens")]
    completion_tokens: Annotated[int, of("usage", "completion_tokens")]
    replica: str
    at_ms: int
    received_at_ms: int


class WasteView(View):
    """Work of a replica that nobody pays, at the price that the organization would have paid."""

    attempt: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    at_ms: int


class ClaimsView(View):
    """Whose attempt it was, by the claims that the gateway signed."""

    organization: str
    project: str
    key: str
    model: str
    tier: str
    price: str
    endpoint: str
    admitted_at_ms: int


class AttemptView(View):
    """One attempt: what each witness said of it, and whether it is the charged one."""

    id: str
    claims: ClaimsView
    gateway: ReportView | None
    replica: ReportView | None
    hold_expired: ReportView | None
    charged: bool
    waste: WasteView | None


class ChargeView(View):
    """A charge; `rule` is the row of the charge table that decided, or that a correction made it.

    What is `reversed` is below 0, and undoes an earlier one; `credit_note` has it where that was billed.
    """

    organization: str
    project: str
    key: str
    kind: str
    rule: str
    endpoint: str
    model: str
    base_model: str
    service_tier: str
    price: str
    attempt: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    hosted_hours: int
    pinned_hours: int
    stored_months: int
    fees: int
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    budgets: _Names
    admitted_at_ms: int
    charged_at_ms: int
    period: str
    transaction: str | None
    correction: str | None
    credit_note: str | None


class WaitingView(View):
    """A request without a charge; `deadline_ms` (Redis time) is when it is decided without the missing report."""

    organization: str
    looked_at_ms: int
    deadline_ms: int | None


class ReservationView(View):
    """Money set aside for a training job."""

    organization: str
    project: str
    key: str
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    budgets: _Names
    state: str
    reserved_at_ms: int
    closed_at_ms: int | None


class EntryView(View):
    """One line of a transaction."""

    transaction: str
    number: int
    account: str
    amount: int


class TransactionView(View):
    """A journal transaction; its entries sum to 0."""

    id: str
    template: str
    reference: str
    reason: str
    actor: str
    posted_at_ms: int
    entries: list[EntryView]


class RequestView(View):
    """The whole story of a request or a training job."""

    object: Literal["request"] = "request"
    id: str
    state: Literal["charged", "waiting", "reserved"]
    attempts: list[AttemptView]
    charge: ChargeView | None
    corrections: list[ChargeView]
    waiting: WaitingView | None
    reservation: ReservationView | None
    journal: list[TransactionView]
    invoice: str | None
    alarms: list[AlarmView]


class Difference(BaseModel):
    """Something that does not agree. `name` is stable; `subject` says where; `broken`: it must never be.

    What is not broken has an honest reason and is only named, so that the sums add up.
    """

    name: str
    subject: str
    detail: str
    broken: bool


class TokenSums(BaseModel):
    """Tokens (prompt + completion): reported = charged + waste + the named differences + unexplained.

    `unexplained` are tokens that replicas reported and that stand nowhere; 0 in books that agree.
    """

    reported: int
    charged: int
    waste: int
    named: dict[str, int]
    unexplained: int


class Reconciliation(BaseModel):
    """The outcome of all checks; `ok`: nothing is broken."""

    object: Literal["reconciliation"] = "reconciliation"
    ok: bool
    differences: list[Difference]
    tokens: TokenSums
