"""A request's (or a training job's) whole story, for a person to read."""

from typing import Any

from tokenyard.cli.output import dollars, moment, table

_WITNESSES = {
    "attempt": "ATTEMPT",
    "witness": "WITNESS",
    "outcome": "OUTCOME",
    "prompt_tokens": "INPUT",
    "cached_tokens": "CACHED",
    "completion_tokens": "OUTPUT",
    "at": "AT",
    "replica": "REPLICA",
}
_ENTRIES = {"transaction": "TRANSACTION", "account": "ACCOUNT", "amount": "AMOUNT", "at": "POSTED"}


def story(found: dict[str, Any]) -> str:
    """Write attempts with both reports, charge, journal, invoice and alarms."""
    sections = [
        _charge(found),
        _section("Reports", table(_reports(found), _WITNESSES, empty="No witness spoke of it.")),
        _section("Journal", table(_entries(found), _ENTRIES, empty="Nothing was posted.")),
    ]
    waste = [f"{attempt['id']}: {_waste(attempt['waste'])}" for attempt in found["attempts"] if attempt.get("waste")]
    if waste:
        sections.append(_section("Waste (not charged)", "\n".join(waste)))
    if found.get("alarms"):
        alarms = [f"{moment(alarm['at_ms'] / 1000)}  {alarm['kind']}: {alarm['message']}" for alarm in found["alarms"]]
        sections.append(_section("Alarms", "\n".join(alarms)))
    if found.get("invoice"):
        sections.append(f"Invoice: {found['invoice']}")
    return "\n\n".join(sections)


def _charge(found: dict[str, Any]) -> str:
    charge = found.get("charge")
    if charge is None:
        return f"{found['id']}: {found['state']}, no charge yet"
    lines = [
        f"{found['id']}: {found['state']} {dollars(charge['amount'])}, because: {charge['rule']}",
        f"  {charge['endpoint'] or charge['kind']} with {charge['model']}",
        f"  price {charge['price']}, admitted {moment(charge['admitted_at_ms'] / 1000)}, period {charge['period']}",
        f"  organization {charge['organization']}, project {charge['project']}, key {charge['key']}",
    ]
    if charge["trained_tokens"]:
        lines.append(f"  {charge['trained_tokens']} trained tokens")
    return "\n".join(lines)


def _reports(found: dict[str, Any]) -> list[dict[str, Any]]:
    reports = []
    for attempt in found["attempts"]:
        for witness in ("gateway", "replica", "hold_expired"):
            report = attempt.get(witness)
            if report:
                at = moment(report["at_ms"] / 1000)
                reports.append({**report, "at": at, "replica": report["replica"] or None})
    return reports


def _entries(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**entry, "amount": dollars(entry["amount"]), "at": moment(transaction["posted_at_ms"] / 1000)}
        for transaction in found["journal"]
        for entry in transaction["entries"]
    ]


def _waste(waste: dict[str, Any]) -> str:
    tokens = waste["prompt_tokens"] + waste["completion_tokens"]
    return f"{tokens} tokens, worth {dollars(waste['amount'])}"


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}"
