"""Months are the organization's own, and agree with the names of monthly budgets in UTC."""

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.budgets import monthly
from tokenyard_billing.periods import month_of, period_end_ms, period_of, period_start_ms

MOMENTS = st.integers(min_value=0, max_value=4_000_000_000_000)
ZONES = st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Europe/Berlin"])


@given(MOMENTS, ZONES)
def test_a_moment_lies_in_its_period(at_ms: int, zone: str) -> None:
    period = period_of(at_ms, zone)
    assert period_start_ms(period, zone) <= at_ms < period_end_ms(period, zone)


@given(MOMENTS)
def test_months_are_named_as_the_budgets_name_them(at_ms: int) -> None:
    assert monthly("org_x", at_ms) == f"month:org_x:{month_of(at_ms)}"
