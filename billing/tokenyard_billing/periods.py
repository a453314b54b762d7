"""Months and hours in unix milliseconds."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TIME_ZONE = "UTC"  # of every organization's months: budgets, usage and invoices must agree on them
_QUARTER_MS = HOUR_MS // 4  # no time zone in use has a finer offset


def month_of(at_ms: int) -> str:
    """Return the month of `at_ms`, as `core.budgets.monthly` counts it."""
    return period_of(at_ms, TIME_ZONE)


def period_of(at_ms: int, time_zone: str) -> str:
    """Return the billing period of `at_ms`: the month in the organization's time zone, as YYYY-MM."""
    return _month_of_quarter(at_ms // _QUARTER_MS, time_zone)


def period_start_ms(period: str, time_zone: str) -> int:
    """Return the first moment of `period`."""
    year, month = _split(period)
    return round(datetime(year, month, 1, tzinfo=ZoneInfo(time_zone)).timestamp() * 1000)


def period_end_ms(period: str, time_zone: str) -> int:
    """Return the first moment after `period`."""
    year, month = _split(period)
    return period_start_ms(f"{year + month // 12:04d}-{month % 12 + 1:02d}", time_zone)


def _split(period: str) -> tuple[int, int]:
    year, month = period.split("-")
    return int(year), int(month)


@lru_cache(maxsize=4096)
def _month_of_quarter(quarter: int, time_zone: str) -> str:
    moment = datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, UTC)
    return f"{moment.astimezone(ZoneInfo(time_zone)):%Y-%m}"
