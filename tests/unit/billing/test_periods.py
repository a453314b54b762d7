"""Periods are the organization's own and leave out no moment; months agree with the names of monthly budgets in UTC."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.budgets import monthly
from tokenyard_billing.periods import (
    BEGINNING,
    BillingCalendar,
    later,
    month_of,
    period_end_ms,
    period_of,
    period_start_ms,
)

MOMENTS = st.integers(min_value=0, max_value=4_000_000_000_000)
ZONES = st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Europe/Berlin"])


@given(MOMENTS, ZONES)
def test_a_moment_lies_in_its_period(at_ms: int, zone: str) -> None:
    period = period_of(at_ms, zone)
    assert period_start_ms(period, zone) <= at_ms < period_end_ms(period, zone)


@given(MOMENTS)
def test_months_are_named_as_the_budgets_name_them(at_ms: int) -> None:
    assert monthly("org_x", at_ms) == f"month:org_x:{month_of(at_ms)}"


def ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zones", "period", "start", "end"),
    [
        ((), "2026-03", "2026-03-01T00:00Z", "2026-04-01T00:00Z"),
        # Clocks go forward on 29 March: the month is an hour short.
        ((("2026-01", "Europe/Berlin"),), "2026-03", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        # And back on 1 November: an hour long.
        ((("2026-01", "America/New_York"),), "2026-11", "2026-11-01T04:00Z", "2026-12-01T05:00Z"),
        # A leap year's February.
        ((("2027-01", "Asia/Kathmandu"),), "2028-02", "2028-01-31T18:15Z", "2028-02-29T18:15Z"),
        # Samoa had no 30 December: it crossed the date line, and the month is a day short.
        ((("2011-01", "Pacific/Apia"),), "2011-12", "2011-12-01T10:00Z", "2011-12-31T10:00Z"),
        # Changed in the middle of March: April begins where March ended, in UTC, and ends in the new time zone.
        ((("2026-04", "Asia/Tokyo"),), "2026-03", "2026-03-01T00:00Z", "2026-04-01T00:00Z"),
        ((("2026-04", "Asia/Tokyo"),), "2026-04", "2026-04-01T00:00Z", "2026-04-30T15:00Z"),
        # Twelve hours east, then twelve west: the month of the change is a day longer.
        (
            (("2026-01", "Pacific/Auckland"), ("2026-07", "Pacific/Pago_Pago")),
            "2026-07",
            "2026-06-30T12:00Z",
            "2026-08-01T11:00Z",
        ),
    ],
)
def test_periods_begin_and_end_by_hand(zones: tuple[tuple[str, str], ...], period: str, start: str, end: str) -> None:
    calendar = BillingCalendar(zones)
    assert (calendar.start_ms(period), calendar.end_ms(period)) == (ms(start), ms(end))
    assert calendar.period_of(ms(start)) == calendar.period_of(ms(end) - 1) == period
    assert calendar.period_of(ms(start) - 1) == later(period, -1)
    assert calendar.period_of(ms(end)) == later(period)


CHANGES = st.dictionaries(
    st.integers(0, 11).map(lambda months: later("2026-01", months)),
    st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin", "Asia/Kathmandu"]),
).map(lambda found: tuple(sorted(found.items())))


@given(CHANGES, st.integers(ms("2025-12-30T00:00Z"), ms("2027-02-03T00:00Z")))
def test_every_moment_lies_in_one_period_whatever_zones_come(zones: tuple[tuple[str, str], ...], at_ms: int) -> None:
    calendar = BillingCalendar(zones)
    months = [later("2025-11", count) for count in range(17)]
    [found] = [one for one in months if calendar.start_ms(one) <= at_ms < calendar.end_ms(one)]
    assert calendar.period_of(at_ms) == found
    assert all(calendar.end_ms(one) == calendar.start_ms(later(one)) for one in months)


def test_what_was_used_in_a_closed_period_is_billed_in_the_first_open_one() -> None:
    assert BillingCalendar().open_period("2026-03") == "2026-03"
    calendar = BillingCalendar(closed_through="2026-12")
    assert [calendar.open_period(one) for one in ("2026-01", "2026-12", "2027-01", "2027-05")] == [
        *("2027-01", "2027-01", "2027-01", "2027-05")
    ]
    assert (BillingCalendar().first_open, calendar.first_open) == (BEGINNING, "2027-01")
