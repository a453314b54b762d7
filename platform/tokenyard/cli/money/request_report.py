"""All that is known of a request or a training job, for a person to read."""

from tokenyard.cli.output import dollars, moment_ms, table
from tokenyard.clients.platform_api.proof_shapes import RequestInfo

_REPORTS = ("ATTEMPT", "WITNESS", "OUTCOME", "INPUT", "CACHED", "OUTPUT", "AT", "REPLICA")
_ENTRIES = ("TRANSACTION", "ACCOUNT", "AMOUNT", "POSTED")


def request_report(found: RequestInfo) -> str:
    """Write attempts with their reports, charge, journal, waste, alarms and invoice."""
    reports = [
        (
            *(report.attempt, report.witness, report.outcome, report.prompt_tokens, report.cached_tokens),
            *(report.completion_tokens, moment_ms(report.at_ms), report.replica or None),
        )
        for attempt in found.attempts
        for report in attempt.reports
    ]
    entries = [
        (entry.transaction, entry.account, dollars(entry.amount), moment_ms(transaction.posted_at_ms))
        for transaction in found.journal
        for entry in transaction.entries
    ]
    waste = [
        f"{one.id}: {one.waste.prompt_tokens + one.waste.completion_tokens} tokens, worth {dollars(one.waste.amount)}"
        for one in found.attempts
        if one.waste
    ]
    alarms = [f"{moment_ms(alarm.at_ms)}  {alarm.kind}: {alarm.message}" for alarm in found.alarms]
    sections = [
        _charge(found),
        f"Reports\n{table(_REPORTS, reports, empty='No witness reported it.')}",
        f"Journal\n{table(_ENTRIES, entries, empty='Nothing was posted.')}",
    ]
    if waste:
        sections.append("\n".join(("Waste (not charged)", *waste)))
    if alarms:
        sections.append("\n".join(("Alarms", *alarms)))
    if found.invoice:
        sections.append(f"Invoice: {found.invoice}")
    return "\n\n".join(sections)


def _charge(found: RequestInfo) -> str:
    charge = found.charge
    if charge is None:
        return f"{found.id}: {found.state}, no charge yet"
    lines = [
        f"{found.id}: {found.state} {dollars(charge.amount)}, because: {charge.rule}",
        f"  {charge.endpoint or charge.kind} with {charge.model}",
        f"  price {charge.price}, admitted {moment_ms(charge.admitted_at_ms)}, period {charge.period}",
        f"  organization {charge.organization}, project {charge.project}, key {charge.key}",
    ]
    if charge.trained_tokens:
        lines.append(f"  {charge.trained_tokens} trained tokens")
    lines += [
        f"  {moment_ms(one.charged_at_ms)} {one.rule}: {dollars(one.amount)} by {one.price}"
        + (f", on the credit note {one.credit_note}" if one.credit_note else "")
        for one in found.corrections
    ]
    return "\n".join(lines)
