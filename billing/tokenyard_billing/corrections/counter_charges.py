"""What takes the place of a charge: one that undoes it and, where it is rated anew, one at another price. Pure."""

import msgspec

from tokenyard.core.money import NanoDollars, Price
from tokenyard.storage.bulk import sql_table
from tokenyard_billing.charging.charges import ChargeRow
from tokenyard_billing.charging.decision import Rule
from tokenyard_billing.corrections.selection import next_version, reversal_of
from tokenyard_billing.periods import BillingCalendar
from tokenyard_billing.pricing.prices import rated_lines
from tokenyard_billing.tables import COUNTS, Charge


class CounterCharges(msgspec.Struct, frozen=True):
    """Rows that change what was charged by `difference`, which is not 0."""

    rows: tuple[ChargeRow, ...]
    difference: NanoDollars


def counter_charges(
    charge: Charge, price: Price | None, calendar: BillingCalendar, *, correction: str, at_ms: int
) -> CounterCharges | None:
    """Return what undoes `charge` and, with a price, charges it by that; None where nothing would change.

    What a closed period billed, and costs less now, goes on a credit note of its invoice; what costs more is billed in
    the first period that is not closed, as late usage is.
    """
    counts = {name: getattr(charge, name) for name in COUNTS}
    amount = 0 if price is None else sum(line.amount for line in rated_lines(charge.model, price, **counts))
    difference = NanoDollars(amount - charge.amount)
    if not difference:
        return None
    closed = charge.billed_in <= calendar.closed_through
    credited = closed and difference < 0
    common = {
        **{column.key: getattr(charge, column.key) for column in sql_table(Charge).columns},
        "attempt": None,
        "charged_at_ms": at_ms,
        "billed_in": charge.billed_in if credited else calendar.open_period(charge.billed_in),
        "credit_note": credit_note_id(correction, charge.billed_in) if credited else None,
        "transaction": None,
        "correction": correction,
    }
    undone = common | {
        "charge_key": reversal_of(charge.charge_key),
        "rule": Rule.REVERSED.value,
        "reverses": charge.charge_key,
        "amount": -charge.amount,
        **{name: -count for name, count in counts.items()},
    }
    if price is None:
        return CounterCharges((undone,), difference)
    anew = common | {
        "charge_key": next_version(charge.charge_key),
        "rule": Rule.RERATED.value,
        "price": price.id,
        "amount": amount,
    }
    return CounterCharges((undone, anew), difference)


def credit_note_id(correction: str, period: str) -> str:
    """Return the id of the credit note that a correction makes of the invoice of a closed period."""
    return f"{correction.replace('cor_', 'cn_', 1)}_{period}"
