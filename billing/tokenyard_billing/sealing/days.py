"""UTC days as text, YYYY-MM-DD."""

from datetime import UTC, date, datetime, timedelta

from tokenyard_billing.periods import DAY_MS


def day_of(at_ms: int) -> str:
    """Return the day of a moment."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d}"


def start_ms(day: str) -> int:
    """Return the first moment of `day`."""
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * DAY_MS


def end_ms(day: str) -> int:
    """Return the first moment after `day`."""
    return start_ms(day) + DAY_MS


def day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
