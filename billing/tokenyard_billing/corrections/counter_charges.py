"""What takes the place of a charge: one that undoes it and, where it is rated anew, one at another price. Pure."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.money import NanoDollars, Price
from tokenyard.storage.bulk import sql_table
from tokenyard_billing.charging.charges import ChargeRow
from tokenyard_billing.charging.decision import Rule
from tokenyard_billing.corrections.selection import next_version, restored_as, reversal_of
from tokenyard_billing.periods import BillingCalendar
from tokenyard_billing.pricing.prices import rated_lines
from tokenyard_billing.tables import COUNTS, Charge


class CounterCharges(msgspec.Struct, frozen=True):
    """Rows that change what was charged by `difference`, which is not 0."""

    rows: tuple[ChargeRow, ...]
    difference: NanoDollars


def counter_charges(
    charge: Charge,
    price: Price | None,
    calendar: BillingCalendar,
    *,
    correction: str,
    at_ms: int,
    former: Sequence[Charge] = (),
) -> CounterCharges | None:
    """Return what undoes `charge` and, with a price, charges it by that; None where nothing would change.

    What a closed period billed, and costs less now, goes on a credit note of its invoice; what costs more is billed in
    the first period that is not closed, as late usage is. Where it had cost less, and `former` was billed before, the
    newest first, each of these bills takes back its own part: none comes to less than 0.
    """
    counts = {name: getattr(charge, name) for name in COUNTS}
    amount = 0 if price is None else sum(line.amount for line in rated_lines(charge.model, price, **counts))
    difference = NanoDollars(amount - charge.amount)
    if not difference:
        return None
    made = {"attempt": None, "charged_at_ms": at_ms, "transaction": None, "correction": correction}
    rows: list[ChargeRow] = []
    undone = _columns(charge)
    bill = _lowered_on(charge.billed_in, calendar, correction)
    for one in former:
        if amount >= one.amount:
            break
        restored = _columns(one) | made | bill | {"charge_key": restored_as(charge.charge_key, one.billed_in)}
        restored |= {"rule": Rule.RERATED.value, "reverses": None}
        rows += [_undoing(undone) | made | bill, restored]
        undone, bill = restored, _lowered_on(one.billed_in, calendar, correction)
    if difference > 0:
        bill = {"billed_in": calendar.open_period(charge.billed_in), "credit_note": None}
    rows.append(_undoing(undone) | made | bill)
    if price is not None:
        anew = {"charge_key": next_version(charge.charge_key), "rule": Rule.RERATED.value, "reverses": None}
        rows.append(_columns(charge) | made | bill | anew | {"price": price.id, "amount": amount})
    return CounterCharges(tuple(rows), difference)


def _columns(charge: Charge) -> ChargeRow:
    return {column.key: getattr(charge, column.key) for column in sql_table(Charge).columns}


def _undoing(row: ChargeRow) -> ChargeRow:
    return row | {
        "charge_key": reversal_of(row["charge_key"]),
        "rule": Rule.REVERSED.value,
        "reverses": row["charge_key"],
        **{name: -row[name] for name in (*COUNTS, "amount")},
    }


def _lowered_on(period: str, calendar: BillingCalendar, correction: str) -> ChargeRow:
    """Return where that stands which a period billed, and costs less now."""
    closed = period <= calendar.closed_through
    return {"billed_in": period, "credit_note": credit_note_id(correction, period) if closed else None}


def credit_note_id(correction: str, period: str) -> str:
    """Return the id of the credit note that a correction makes of the invoice of a closed period."""
    return f"{correction.replace('cor_', 'cn_', 1)}_{period}"
