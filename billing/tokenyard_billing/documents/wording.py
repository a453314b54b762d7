"""How documents write amounts, quantities and dates: in English, exactly, and alike on every machine."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tokenyard.core.money import to_dollars
from tokenyard_billing.pricing.fee_prices import fee_price
from tokenyard_billing.pricing.prices import Unit, unit_of

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_KINDS = {
    "input": "Input tokens",
    "cached_input": "Input tokens from the cache",
    "output": "Output tokens",
    "training": "Training tokens",
    "hosting": "Hosting of a fine-tuned model",
    "pinned_hosting": "Hosting of a fine-tuned model in memory",
    "storage": "Storage",
    "plan_fee": "Monthly fee",
    "minimum": "Up to the monthly minimum",
}
_QUANTITIES: dict[Unit, str] = {"tokens": "", "hours": " h", "gigabyte_months": " GB-months", "fees": ""}
_RATES: dict[Unit, tuple[int, str]] = {
    "tokens": (1_000_000, "1M tokens"),
    "hours": (1, "hour"),
    "gigabyte_months": (1, "GB-month"),
    "fees": (1, "fee"),
}
"""Of so many units a price is stated, and what they are called."""


def money(amount: int) -> str:
    """Write nano-dollars exactly, with at least two decimals: `1_234_500_000_000` becomes `1,234.50`."""
    whole, _, decimals = to_dollars(abs(amount)).partition(".")
    return f"{'-' if amount < 0 else ''}{int(whole):,}.{decimals}"


def decimals(text: str) -> int:
    """Return how many decimals an amount was written with."""
    return len(text.partition(".")[2])


def kind_text(kind: str, price: str) -> str:
    """Return what a line is of, and of a fee for which days; a kind that is not known here is named as it is."""
    text = _KINDS.get(kind, kind.replace("_", " ").capitalize())
    if (fee := fee_price(price)) is None:
        return text
    return f"{text}, {_date_text(fee.first)} to {_date_text(fee.last)}"


def quantity_text(kind: str, quantity: int) -> str:
    return f"{quantity:,}{_QUANTITIES[unit_of(kind)]}"


def rate_text(kind: str, rate: int) -> str:
    """Write nano-dollars for one unit as a price: exactly, of as many units as people think in."""
    units, name = _RATES[unit_of(kind)]
    return f"{money(rate * units)} / {name}"


def month_text(period: str) -> str:
    """Write YYYY-MM as `March 2026`."""
    year, month = period.split("-")
    return f"{MONTHS[int(month) - 1]} {year}"


def _date_text(date: str) -> str:
    """Write YYYY-MM-DD as `1 March 2026`."""
    return f"{int(date[8:])} {month_text(date[:7])}"


def day_text(at_ms: int, time_zone: str) -> str:
    """Write the day of a moment: `1 March 2026`."""
    moment = _local(at_ms, time_zone)
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}"


def span_text(start_ms: int, end_ms: int, time_zone: str) -> str:
    """Write from when to before when: in days where it is of whole days, else to the minute.

    The period in which a time zone changes begins or ends amid a day of one of the two.
    """
    bounds = [_local(at_ms, time_zone) for at_ms in (start_ms, end_ms)]
    if all((moment.hour, moment.minute) == (0, 0) for moment in bounds):
        return f"{day_text(start_ms, time_zone)} to {day_text(end_ms - 1, time_zone)}"
    start, end = (f"{day_text(at_ms, time_zone)} {_local(at_ms, time_zone):%H:%M}" for at_ms in (start_ms, end_ms))
    return f"{start} until {end}"


def _local(at_ms: int, time_zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(time_zone))
