"""Months, hours and billing periods in unix milliseconds."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TIME_ZONE = "UTC"  # of monthly limits and usage, and of the periods of an organization that has set no other
BEGINNING = "1970-01"  # nothing was used before
_QUARTER_MS = HOUR_MS // 4  # no time zone in use has a finer offset


def month_of(at_ms: int) -> str:
    """Return the month of `at_ms`, as `core.budgets.monthly` counts it."""
    return period_of(at_ms, TIME_ZONE)


def period_of(at_ms: int, time_zone: str) -> str:
    """Return the billing period of `at_ms`: the month in the organization's time zone, as YYYY-MM."""
    return _month_of_quarter(at_ms // _QUARTER_MS, time_zone)


@lru_cache(maxsize=4096)
def period_start_ms(period: str, time_zone: str) -> int:
    """Return the first moment of `period`."""
    year, month = map(int, period.split("-"))
    return round(datetime(year, month, 1, tzinfo=ZoneInfo(time_zone)).timestamp() * 1000)


def period_end_ms(period: str, time_zone: str) -> int:
    """Return the first moment after `period`."""
    return period_start_ms(later(period), time_zone)


def later(period: str, months: int = 1) -> str:
    """Return the period so many months after `period`, below 0 before it."""
    year, month = map(int, period.split("-"))
    years, rest = divmod(month - 1 + months, 12)
    return f"{year + years:04d}-{rest + 1:02d}"


class BillingCalendar(msgspec.Struct, frozen=True):
    """The periods of one organization: each begins where the one before it ended.

    `zones` are pairs of the first period that ends in a time zone, and that zone, in order. `closed_through` is the
    last closed period; none up to it is open. It is empty where none was closed.
    """

    zones: Sequence[tuple[str, str]] = ()
    closed_through: str = ""

    def time_zone(self, period: str) -> str:
        """Return the time zone in which `period` ends."""
        return next((zone for since, zone in reversed(self.zones) if since <= period), TIME_ZONE)

    def start_ms(self, period: str) -> int:
        """Return the first moment of `period`."""
        return self.end_ms(later(period, -1))

    def end_ms(self, period: str) -> int:
        """Return the first moment after `period`."""
        return period_end_ms(period, self.time_zone(period))

    def period_of(self, at_ms: int) -> str:
        """Return the period of a moment."""
        month = month_of(at_ms)  # no time zone is a whole month away from UTC
        if at_ms < self.start_ms(month):
            return later(month, -1)
        return month if at_ms < self.end_ms(month) else later(month)

    @property
    def first_open(self) -> str:
        """Return the first period that is not closed: the beginning, where none was closed."""
        return later(self.closed_through) if self.closed_through else BEGINNING

    def open_period(self, period: str) -> str:
        """Return the period in which usage of `period` is billed: its own, or the first that is not closed."""
        return period if period > self.closed_through else later(self.closed_through)


@lru_cache(maxsize=4096)
def _month_of_quarter(quarter: int, time_zone: str) -> str:
    moment = datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, UTC)
    return f"{moment.astimezone(ZoneInfo(time_zone)):%Y-%m}"
