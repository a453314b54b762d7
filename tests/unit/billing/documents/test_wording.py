"""Amounts and dates as documents write them."""

import pytest

from tokenyard.core.money import NANO_PER_DOLLAR
from tokenyard_billing.documents.wording import (
    day_text,
    kind_text,
    money,
    month_text,
    quantity_text,
    rate_text,
    span_text,
)
from tokenyard_billing.periods import HOUR_MS, period_end_ms, period_start_ms


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (10_000_000, "0.01"),
        (1_234_500_000_000, "1,234.50"),
        (-15_000_000, "-0.015"),
        (9 * 10**18, "9,000,000,000.00"),
    ],
)
def test_an_amount_is_exact_with_two_decimals_at_least(amount: int, text: str) -> None:
    assert money(amount) == text


@pytest.mark.parametrize(
    ("kind", "quantity", "rate", "texts"),
    [
        ("input", 1_234_567, 150, ("1,234,567", "0.15 / 1M tokens")),
        ("hosting", 720, NANO_PER_DOLLAR // 4, ("720 h", "0.25 / hour")),
        ("storage", 3, 20_000_000, ("3 GB-months", "0.02 / GB-month")),
        ("minimum", 1, 7_500_000_000, ("1", "7.50 / fee")),
    ],
)
def test_quantities_and_rates_say_their_unit(kind: str, quantity: int, rate: int, texts: tuple[str, str]) -> None:
    assert (quantity_text(kind, quantity), rate_text(kind, rate)) == texts


def test_a_kind_that_is_new_has_a_name() -> None:
    assert kind_text("image_input", "2026/chat") == "Image input"


def test_a_fee_says_for_which_days_it_is() -> None:
    price = "plan:team/plan_fee/2026-03-01/2026-03-09/5806451612"
    assert kind_text("plan_fee", price) == "Monthly fee, 1 March 2026 to 9 March 2026"


def test_a_day_is_that_of_the_time_zone() -> None:
    start_ms = period_start_ms("2026-04", "Asia/Tokyo")
    assert day_text(start_ms, "Asia/Tokyo") == "1 April 2026"
    assert day_text(start_ms, "UTC") == "31 March 2026"
    assert month_text("2026-12") == "December 2026"


def test_a_span_is_of_days_or_to_the_minute() -> None:
    start_ms, end_ms = period_start_ms("2026-03", "Europe/Berlin"), period_end_ms("2026-03", "Europe/Berlin")
    assert span_text(start_ms, end_ms, "Europe/Berlin") == "1 March 2026 to 31 March 2026"
    late_ms = start_ms + HOUR_MS
    assert span_text(late_ms, end_ms, "Europe/Berlin") == "1 March 2026 01:00 until 1 April 2026 00:00"
