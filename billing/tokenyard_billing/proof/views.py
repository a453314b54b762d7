"""A request's story, alarms, dead letters and the outcome of all checks, as the API shows them."""

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator

from tokenyard.web.pages import Identified
from tokenyard_billing.charging.reports import Report, ReportWitness
from tokenyard_billing.invoicing.store import invoice_id
from tokenyard_billing.proof.operator_store import RequestStory
from tokenyard_billing.views import Dollars, View, of

_Names = Annotated[list[str], BeforeValidator(json.loads)]


class AlarmView(View, Identified):
    """Something an operator must look at; `subject` is a request, attempt, job or stream entry."""

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


class ReportView(BaseModel):
    """What one witness said of an attempt; `at_ms` is by its own clock, `received_at_ms` by Redis."""

    attempt: str
    witness: ReportWitness
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    replica: str
    at_ms: int
    received_at_ms: int

    @classmethod
    def of(cls, report: Report) -> Self:
        return cls(
            attempt=report.attempt,
            witness=report.witness,
            outcome=report.outcome,
            prompt_tokens=report.usage.prompt_tokens,
            cached_tokens=report.usage.cached_tokens,
            completion_tokens=report.usage.completion_tokens,
            replica=report.replica,
            at_ms=report.at_ms,
            received_at_ms=report.received_at_ms,
        )


class WasteView(View):
    """Work of a replica that nobody pays, at the price that the organization would have paid."""

    attempt: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    at_ms: int


class AttemptView(BaseModel):
    """One attempt: whose it was by the signed claims, what each witness said, and whether it is the charged one."""

    id: str
    organization: str
    project: str
    key: str
    model: str
    price: str
    endpoint: str
    admitted_at_ms: int
    gateway: ReportView | None
    replica: ReportView | None
    hold_expired: ReportView | None
    charged: bool
    waste: WasteView | None

    @classmethod
    def of(cls, attempt: str, story: RequestStory) -> Self:
        said = {report.witness: report for report in story.reports if report.attempt == attempt}
        shown = {witness: ReportView.of(report) for witness, report in said.items()}
        claims = next(iter(said.values())).claims
        wasted = next((waste for waste in story.waste if waste.attempt == attempt), None)
        return cls(
            id=attempt,
            organization=claims.organization,
            project=claims.project,
            key=claims.key,
            model=claims.model,
            price=claims.price,
            endpoint=claims.endpoint,
            admitted_at_ms=claims.admitted_at_ms,
            gateway=shown.get(ReportWitness.GATEWAY),
            replica=shown.get(ReportWitness.REPLICA),
            hold_expired=shown.get(ReportWitness.HOLD),
            charged=story.charge is not None and story.charge.attempt == attempt,
            waste=WasteView.model_validate(wasted) if wasted else None,
        )


class ChargeView(View):
    """The charge; `rule` is the row of the charge table that decided."""

    organization: str
    project: str
    key: str
    kind: str
    rule: str
    endpoint: str
    model: str
    base_model: str
    price: str
    attempt: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    budgets: _Names
    admitted_at_ms: int
    charged_at_ms: int
    period: str
    transaction: str | None


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


class RequestView(BaseModel):
    """The whole story of a request or a training job."""

    object: Literal["request"] = "request"
    id: str
    state: Literal["charged", "waiting", "reserved"]
    attempts: list[AttemptView]
    charge: ChargeView | None
    waiting: WaitingView | None
    reservation: ReservationView | None
    journal: list[TransactionView]
    invoice: str | None
    alarms: list[AlarmView]

    @classmethod
    def of(cls, story: RequestStory) -> Self:
        charge, waiting, reservation = story.charge, story.waiting, story.reservation
        attempts = sorted({report.attempt for report in story.reports})
        return cls(
            id=story.key,
            state="charged" if charge else "waiting" if waiting else "reserved",
            attempts=[AttemptView.of(attempt, story) for attempt in attempts],
            charge=ChargeView.model_validate(charge) if charge else None,
            waiting=WaitingView.model_validate(waiting) if waiting else None,
            reservation=ReservationView.model_validate(reservation) if reservation else None,
            journal=[TransactionView.model_validate(one) for one in story.transactions],
            invoice=invoice_id(charge.organization, charge.period) if charge else None,
            alarms=[AlarmView.model_validate(alarm) for alarm in story.alarms],
        )


class DifferenceView(View):
    """Something that does not agree. `name` is stable; `broken`: it must never be."""

    name: str
    subject: str
    detail: str
    broken: bool


class TokenSumsView(View):
    """Tokens: reported = charged + waste + the named differences + unexplained."""

    reported: int
    charged: int
    waste: int
    named: dict[str, int]
    unexplained: int


class ReconciliationView(View):
    """The outcome of all checks."""

    object: Literal["reconciliation"] = "reconciliation"
    ok: bool
    differences: list[DifferenceView]
    tokens: TokenSumsView
