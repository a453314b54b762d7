"""What a witness said of an attempt: made from a usage event, kept as a row and read back."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import AttemptId, RequestId, request_of
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import HoldExpired, ReplicaReported, Settled
from tokenyard.storage import bulk
from tokenyard_billing.tables import UsageReport

_NOTHING = TokenUsage(0, 0)
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[MeterClaims] = msgspec.json.Decoder(MeterClaims)


class ReportWitness(StrEnum):
    """Who speaks. `HOLD` is the hold's lease that ran out: it says only that the gateway is gone."""

    GATEWAY = "gateway"
    REPLICA = "replica"
    HOLD = "hold"


class Report(msgspec.Struct, frozen=True):
    """One witness on one attempt. `outcome`: a gateway's `core.usage.Outcome`; a replica's `finished` or `aborted`.

    `replica` is who reports; in a gateway's report of an attempt that nobody else will report, the server elsewhere.
    """

    witness: ReportWitness
    claims: MeterClaims
    usage: TokenUsage
    outcome: str
    replica: str
    at_ms: int
    received_at_ms: int

    @property
    def attempt(self) -> AttemptId:
        return self.claims.attempt

    @property
    def request(self) -> RequestId:
        return request_of(self.claims.attempt)


def report_of(event: Settled | ReplicaReported | HoldExpired, received_at_ms: int) -> Report:
    match event:
        case Settled(claims, outcome, usage, at_ms):
            return Report(ReportWitness.GATEWAY, claims, usage, outcome.value, claims.server, at_ms, received_at_ms)
        case ReplicaReported(claims, usage, replica, finished, at_ms):
            ending = "finished" if finished else "aborted"
            return Report(ReportWitness.REPLICA, claims, usage, ending, replica, at_ms, received_at_ms)
        case HoldExpired(claims, at_ms):
            return Report(ReportWitness.HOLD, claims, _NOTHING, "expired", "", at_ms, received_at_ms)


async def insert_reports(session: AsyncSession, reports: Iterable[Report]) -> None:
    rows = [
        {
            "attempt": report.attempt,
            "witness": report.witness.value,
            "request": report.request,
            "organization": report.claims.organization,
            "outcome": report.outcome,
            **msgspec.structs.asdict(report.usage),
            "claims": _ENCODER.encode(report.claims).decode(),
            "replica": report.replica,
            "at_ms": report.at_ms,
            "received_at_ms": report.received_at_ms,
        }
        for report in reports
    ]
    await bulk.insert(session, UsageReport, rows)


async def load_reports(session: AsyncSession, requests: Iterable[str]) -> dict[str, list[Report]]:
    """Return all that was said of `requests`, by request."""
    table = UsageReport
    query = select(
        table.request,
        table.witness,
        table.claims,
        table.prompt_tokens,
        table.completion_tokens,
        table.cached_tokens,
        table.outcome,
        table.replica,
        table.at_ms,
        table.received_at_ms,
    ).where(table.request.in_(list(requests)))
    found: dict[str, list[Report]] = {}
    for request, witness, claims, prompt, completion, cached, *rest in await session.execute(query):
        report = Report(ReportWitness(witness), _DECODER.decode(claims), TokenUsage(prompt, completion, cached), *rest)
        found.setdefault(request, []).append(report)
    return found
