"""The charge table: which witness's count a request is charged by. Pure; the order of reports never matters."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from tokenyard.core.ids import AttemptId
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard_billing.charging.reports import Report, ReportWitness

NOTHING = TokenUsage(0, 0)


class Rule(StrEnum):
    """The row of the charge table that decided."""

    COMPLETED = "completed"  # what the gateway relayed
    CLIENT_LEFT = "client_left"  # the replica's report
    CLIENT_LEFT_UNREPORTED = "client_left_unreported"  # no replica's report in time: the gateway's count
    LEFT_ELSEWHERE = "left_elsewhere"  # no replica was asked: the gateway's count, at once
    REPLICA_LOST = "replica_lost"  # what the gateway relayed
    FAILED = "failed"  # every attempt failed before its first byte: nothing
    GATEWAY_LOST = "gateway_lost"  # the replica's report of the highest attempt
    UNREPORTED = "unreported"  # the gateway is lost and no replica spoke: nothing, and an alarm
    TRAINING = "training"  # a fine-tuning job's trained tokens
    HOSTING = "hosting"  # an hour of a fine-tune that was live
    STORAGE = "storage"  # a gigabyte that was kept for a month
    PLAN_FEE = "plan_fee"  # what a plan asked for a period, or for the part of it that it held
    MINIMUM = "minimum"  # what a period lacked of the plan's minimum
    REVERSED = "reversed"  # a correction: what another charge says, negated
    RERATED = "rerated"  # a correction: what a reversed charge says, at another card's price


_ESTIMATED = {Rule.CLIENT_LEFT_UNREPORTED, Rule.UNREPORTED}


class Finding(msgspec.Struct, frozen=True):
    """Something an operator must see. `kind` is stable; `subject` is a request or an attempt."""

    kind: str
    subject: str
    message: str


class Decision(msgspec.Struct, frozen=True):
    """How a request is charged. `attempt` is the one that is paid for; None where none is.

    `waste` are the replicas' reports that nobody pays.
    """

    rule: Rule
    claims: MeterClaims
    attempt: AttemptId | None
    usage: TokenUsage
    waste: tuple[Report, ...] = ()
    findings: tuple[Finding, ...] = ()


class Charged(msgspec.Struct, frozen=True):
    """A charge that stands."""

    rule: Rule
    attempt: str | None
    usage: TokenUsage


class LateReport(msgspec.Struct, frozen=True):
    """What a report means that came after the charge: it never changes it."""

    waste: bool = False
    findings: tuple[Finding, ...] = ()


def decide(reports: Iterable[Report], *, waited: bool) -> Decision | None:
    """Apply the charge table to everything that was said of one request.

    `waited` says that the time for the missing report is over. None means that it must be waited for.
    """
    said = list(reports)
    replicas = {report.attempt: report for report in said if report.witness is ReportWitness.REPLICA}
    settled = max((r for r in said if r.witness is ReportWitness.GATEWAY), key=_number, default=None)
    expired = max((r for r in said if r.witness is ReportWitness.HOLD), key=_number, default=None)
    if settled is not None:
        decision = _by_gateway(settled, replicas.get(settled.attempt), waited=waited)
    elif expired is not None and waited:
        decision = _without_gateway(expired, max(replicas.values(), key=_number, default=None))
    else:
        return None
    if decision is None:
        return None
    return _with_consequences(decision, replicas.values())


def judge_late(charged: Charged, report: Report) -> LateReport:
    """Say what `report` means for a request that is already charged."""
    rule, usage, subject = charged.rule, charged.usage, report.attempt
    if report.witness is ReportWitness.HOLD:
        return LateReport()
    if report.witness is ReportWitness.GATEWAY:
        message = f"the gateway settled as {report.outcome} after the request was charged by the rule {rule}"
        return LateReport(findings=(Finding("late_settlement", subject, message),))
    if subject != charged.attempt:
        if rule not in {Rule.GATEWAY_LOST, Rule.UNREPORTED}:
            return LateReport(waste=True)
        message = f"a replica reported another attempt after the request was charged by the rule {rule}"
        return LateReport(waste=True, findings=(Finding("late_report", subject, message),))
    if rule in _ESTIMATED:
        message = f"the replica counted {_text(report.usage)} after {_text(usage)} was charged without its report"
        return LateReport(findings=(Finding("late_report", subject, message),))
    return LateReport(findings=_disagreement(rule, usage, report))


def _by_gateway(settled: Report, replica: Report | None, *, waited: bool) -> Decision | None:
    match settled.outcome:
        case Outcome.COMPLETED | Outcome.REPLICA_LOST | Outcome.LEFT_ELSEWHERE:
            return Decision(Rule(settled.outcome), settled.claims, settled.attempt, settled.usage)
        case Outcome.CLIENT_LEFT if replica is not None:
            return Decision(Rule.CLIENT_LEFT, settled.claims, settled.attempt, replica.usage)
        case Outcome.CLIENT_LEFT if waited:
            return Decision(Rule.CLIENT_LEFT_UNREPORTED, settled.claims, settled.attempt, settled.usage)
        case Outcome.CLIENT_LEFT:
            return None
        case _:
            return Decision(Rule.FAILED, settled.claims, None, NOTHING)


def _without_gateway(expired: Report, replica: Report | None) -> Decision:
    if replica is not None:
        return Decision(Rule.GATEWAY_LOST, replica.claims, replica.attempt, replica.usage)
    missing = "a server elsewhere reports nothing" if expired.claims.server else "no replica reported"
    message = f"the gateway is gone and {missing}: charged nothing"
    finding = Finding("unreported", expired.request, message)
    return Decision(Rule.UNREPORTED, expired.claims, expired.attempt, NOTHING, findings=(finding,))


def _with_consequences(decision: Decision, replicas: Iterable[Report]) -> Decision:
    waste = []
    findings = list(decision.findings)
    for report in replicas:
        if report.attempt != decision.attempt:
            waste.append(report)
        else:
            findings += _disagreement(decision.rule, decision.usage, report)
    return msgspec.structs.replace(decision, waste=tuple(waste), findings=tuple(findings))


def _disagreement(rule: Rule, charged: TokenUsage, report: Report) -> tuple[Finding, ...]:
    """Only a completed stream was seen to its end by both; elsewhere the counts may honestly differ."""
    if rule is not Rule.COMPLETED or report.usage == charged:
        return ()
    message = f"the gateway relayed {_text(charged)}, the replica counted {_text(report.usage)}"
    return (Finding("witnesses_differ", report.attempt, message),)


def _number(report: Report) -> int:
    return int(report.attempt.rpartition(".")[2])


def _text(usage: TokenUsage) -> str:
    return f"{usage.prompt_tokens} ({usage.cached_tokens} cached) + {usage.completion_tokens} tokens"
