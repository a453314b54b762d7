"""Charges in the making, the one place that writes them, and their sums by hour."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import AdapterHosted, StandaloneUse, StorageHeld, TrainingFinished
from tokenyard.storage import bulk
from tokenyard_billing.calendars import add_periods, load_calendars
from tokenyard_billing.charging.decision import NOTHING, Rule
from tokenyard_billing.charging.fee import PlanFee
from tokenyard_billing.charging.rating import tier_of
from tokenyard_billing.periods import HOUR_MS, BillingCalendar
from tokenyard_billing.pricing.fee_prices import MINIMUM, PLAN_FEE
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tables import COUNTS, Charge, HourlyUsage

HOSTING = "hosting"
STORAGE_KIND = "storage"
NO_REQUESTS = (HOSTING, STORAGE_KIND, PLAN_FEE, MINIMUM)
"""The kinds of charges that no request made, so that none is counted."""
ChargeRow = dict[str, Any]
"""The columns of one charge."""
_HOUR = ("organization", "project", "key", "kind", "model", "price", "end_user", "hour_ms")
_SUMMED = ("requests", *COUNTS, "amount")


class NewCharge(msgspec.Struct):
    """A charge before it is written. `source` says whose it is; `transaction` is set when it is posted."""

    key: str
    source: MeterClaims | StandaloneUse | PlanFee
    rule: Rule
    amount: NanoDollars
    budgets: Sequence[str]
    attempt: str | None = None
    usage: TokenUsage = NOTHING
    transaction: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How much was used, by each of `COUNTS`, in their order."""
        found = dict.fromkeys(COUNTS, 0) | msgspec.structs.asdict(self.usage)
        match self.source:
            case TrainingFinished():
                found["trained_tokens"] = self.source.trained_tokens
            case AdapterHosted():
                found["pinned_hours" if self.source.pinned else "hosted_hours"] = 1
            case StorageHeld():
                found["stored_months"] = 1
            case PlanFee():
                found["fees"] = 1
        return found

    @property
    def kind(self) -> str:
        match self.source:
            case TrainingFinished():
                return "training"
            case AdapterHosted():
                return HOSTING
            case StorageHeld():
                return STORAGE_KIND
            case PlanFee():
                return self.source.kind
            case _:
                return "inference"

    @property
    def end_user(self) -> str:
        return self.source.end_user if isinstance(self.source, MeterClaims) else ""

    @property
    def scopes(self) -> tuple[str, str, str]:
        """Return organization, project and key; what is of no project and no key has empty ones."""
        return self.source.organization, self.source.project, self.source.key


async def write_charges(session: AsyncSession, charges: Sequence[NewCharge], at_ms: int) -> None:
    """Insert `charges`.

    One that was used in a closed period is billed in the first that is not: its bucket's lease, which the transaction
    proves to hold, is also what a period is closed under.
    """
    if not charges:
        return
    calendars = await load_calendars(session, {charge.source.organization for charge in charges})
    rows = [_row(charge, _bill(charge, calendars[charge.source.organization]), at_ms) for charge in charges]
    await write_rows(session, rows, calendars, at_ms)


async def write_rows(
    session: AsyncSession, rows: Sequence[ChargeRow], calendars: Mapping[OrganizationId, BillingCalendar], at_ms: int
) -> None:
    """Insert charges, add them to their hours and mark their invoices; what used nothing is no usage."""
    await bulk.insert(session, Charge, rows)
    await _add_hours(session, rows)
    billed = [(row["organization"], row["billed_in"]) for row in rows if row["credit_note"] is None]
    used = ((row["organization"], row["period"]) for row in rows)
    await add_periods(session, calendars, (*billed, *used), at_ms)
    await mark_stale(session, billed)


def billed_by(organization: OrganizationId, period: str) -> ColumnElement[bool]:
    """Return which charges the organization's invoice of a period bills."""
    return (Charge.organization == organization) & (Charge.billed_in == period) & Charge.credit_note.is_(None)


def requests_of(kind: str, rule: str) -> int:
    """Return for how many requests a charge stands: a reversed one counts no more."""
    if kind in NO_REQUESTS:
        return 0
    return -1 if rule == Rule.REVERSED else 1


async def _add_hours(session: AsyncSession, rows: Sequence[ChargeRow]) -> None:
    hours: dict[tuple[str | int, ...], list[int]] = {}
    for row in rows:
        used = [row[name] for name in COUNTS]
        if any(used):
            hour_ms = row["admitted_at_ms"] // HOUR_MS * HOUR_MS
            sums = hours.setdefault((*(row[name] for name in _HOUR[:-1]), hour_ms), [0] * len(_SUMMED))
            for index, value in enumerate((requests_of(row["kind"], row["rule"]), *used, row["amount"])):
                sums[index] += value
    sums_of_hours = [dict(zip((*_HOUR, *_SUMMED), (*key, *sums), strict=True)) for key, sums in sorted(hours.items())]
    await bulk.add_up(session, HourlyUsage, sums_of_hours, add=_SUMMED)


def _bill(charge: NewCharge, calendar: BillingCalendar) -> dict[str, str]:
    period = calendar.period_of(charge.source.admitted_at_ms)
    return {
        "period": period,
        "time_zone": calendar.time_zone(period),
        "billed_in": calendar.open_period(period),
    }


def _row(charge: NewCharge, billing: dict[str, str], at_ms: int) -> ChargeRow:
    source = charge.source
    return {
        "charge_key": charge.key,
        "organization": source.organization,
        "project": source.project,
        "key": source.key,
        "kind": charge.kind,
        "rule": charge.rule.value,
        "endpoint": source.endpoint if isinstance(source, MeterClaims) else "",
        "end_user": charge.end_user,
        "model": source.model,
        "base_model": source.base_model,
        "service_tier": tier_of(source),
        "price": source.price,
        "attempt": charge.attempt,
        **charge.counts,
        "amount": charge.amount,
        "budgets": json.dumps(charge.budgets),
        "admitted_at_ms": source.admitted_at_ms,
        "charged_at_ms": at_ms,
        **billing,
        "transaction": charge.transaction,
        "correction": None,
        "reverses": None,
        "credit_note": None,
    }
