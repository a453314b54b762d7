"""However plans change within a period, each part costs its share of time, and equal months cost what they say."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.money import FeeStep, NanoDollars
from tokenyard_billing.periods import BillingCalendar, later
from tokenyard_billing.plan_fees.proration import asking_periods, plan_parts

CALENDAR = BillingCalendar([("1970-01", "America/New_York")], "2026-01")
START_MS, END_MS = CALENDAR.start_ms("2026-03"), CALENDAR.end_ms("2026-03")
AMOUNTS = st.integers(0, 10**13).map(NanoDollars)
MOMENTS = st.integers(START_MS - 10**10, END_MS + 10**10) | st.sampled_from([START_MS, END_MS, END_MS - 1])
STEPS = st.dictionaries(MOMENTS, st.builds(FeeStep, st.just(0), st.sampled_from("ab"), AMOUNTS, AMOUNTS)).map(
    lambda found: [FeeStep(at_ms, one.plan, one.fee, one.minimum) for at_ms, one in sorted(found.items())]
)


@given(STEPS)
def test_each_part_is_its_share_of_time_to_the_nano_dollar(steps: Sequence[FeeStep]) -> None:
    length_ms = END_MS - START_MS
    parts = plan_parts(steps, START_MS, END_MS)
    for part in parts:
        [asked] = [step for step in steps if step.from_ms <= part.from_ms][-1:]
        assert asked.plan == part.plan
        assert START_MS <= part.from_ms < part.until_ms <= END_MS
        for amount, whole in ((part.fee, asked.fee), (part.minimum, asked.minimum)):
            assert abs(amount - Fraction(whole * (part.until_ms - part.from_ms), length_ms)) < 1
    assert all(one.until_ms <= other.from_ms for one, other in pairwise(parts))


@given(fee=AMOUNTS, moments=st.sets(st.integers(START_MS + 1, END_MS - 1), max_size=9))
def test_the_parts_of_one_fee_are_that_fee(fee: NanoDollars, moments: set[int]) -> None:
    """Also where it is another plan's from then on."""
    steps = [FeeStep(at_ms, str(number), fee, fee) for number, at_ms in enumerate([START_MS, *sorted(moments)])]
    parts = plan_parts(steps, START_MS, END_MS)
    assert sum(part.fee for part in parts) == sum(part.minimum for part in parts) == fee


@given(fee=AMOUNTS.filter(bool), moments=st.sets(MOMENTS, min_size=1, max_size=5))
def test_a_step_that_changes_nothing_makes_no_part(fee: NanoDollars, moments: set[int]) -> None:
    parts = plan_parts([FeeStep(at_ms, "a", fee) for at_ms in sorted(moments)], START_MS, END_MS)
    assert [(part.from_ms, part.until_ms) for part in parts] == [
        (max(START_MS, at_ms), END_MS) for at_ms in sorted(moments)[:1] if at_ms < END_MS
    ]


@given(STEPS, MOMENTS)
def test_every_open_period_with_a_part_is_found(steps: Sequence[FeeStep], now_ms: int) -> None:
    found = list(asking_periods(steps, CALENDAR, now_ms))
    month, expected = CALENDAR.first_open, []
    while CALENDAR.start_ms(month) < now_ms:
        if plan_parts(steps, CALENDAR.start_ms(month), min(CALENDAR.end_ms(month), now_ms)):
            expected.append(month)
        month = later(month)
    assert found == expected
