"""Amounts are exact or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.money import (
    LIST_PRICE,
    MAX_MULTIPLIER,
    MULTIPLIER_LENGTH,
    WHOLE,
    InexactAmount,
    Millionths,
    Multiplier,
    PriceStep,
    from_dollars,
    multiplier_at,
    multiplier_from,
    multiplier_text,
    percent_text,
    rate_from_dollars_per_million,
    rate_from_percent,
    to_dollars,
)


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_writing_and_reading_an_amount_gives_it_back(amount: int) -> None:
    assert from_dollars(to_dollars(amount)) == amount


@pytest.mark.parametrize("text", ["0.0001", "0.00015", "nan", "Infinity", "one", ""])
def test_a_rate_finer_than_a_nano_dollar_a_token_is_refused(text: str) -> None:
    with pytest.raises(InexactAmount):
        rate_from_dollars_per_million(text)


def test_the_finest_rate_is_a_thousandth_of_a_dollar_a_million() -> None:
    assert rate_from_dollars_per_million("0.001") == 1
    assert rate_from_dollars_per_million("0.15") == 150


@pytest.mark.parametrize("text", ["1e99999999", "1e-99999999", "0.000000001" + "0" * 30 + "1", "0e99999999", "sNaN"])
def test_an_amount_that_decimals_do_not_hold_exactly_is_refused(text: str) -> None:
    with pytest.raises(InexactAmount):
        from_dollars(text)


@given(st.integers(min_value=0, max_value=MAX_MULTIPLIER).map(Multiplier))
def test_a_multiplier_has_one_form(multiplier: Multiplier) -> None:
    text = multiplier_text(multiplier)
    assert multiplier_from(text) == multiplier
    assert len(text) <= MULTIPLIER_LENGTH
    assert multiplier_text(multiplier_from(f"{text}.0" if "." not in text else f"{text}0")) == text


@pytest.mark.parametrize("text", ["0.80001", "-0.1", "10.0001", "nan", "Infinity", "1e99", "x", "", "0,8"])
def test_a_multiplier_that_is_no_number_too_large_or_too_fine_is_refused(text: str) -> None:
    with pytest.raises(InexactAmount):
        multiplier_from(text)


@given(st.integers(min_value=0, max_value=WHOLE).map(Millionths))
def test_a_percentage_has_one_form(rate: Millionths) -> None:
    text = percent_text(rate)
    assert rate_from_percent(text) == rate
    assert percent_text(rate_from_percent(f"{text}.0" if "." not in text else f"{text}0")) == text


@pytest.mark.parametrize("text", ["19.00001", "-0.1", "100.0001", "nan", "Infinity", "1e99", "x", "", "0,8"])
def test_a_percentage_that_is_no_number_too_large_or_too_fine_is_refused(text: str) -> None:
    with pytest.raises(InexactAmount):
        rate_from_percent(text)


def test_a_multiplier_holds_from_its_moment_on() -> None:
    half, double = Multiplier(5_000), Multiplier(20_000)
    steps = (PriceStep(100, half, {"priority": double}), PriceStep(200, double))
    found = [multiplier_at(steps, "default", at_ms) for at_ms in (99, 100, 199, 200)]
    assert found == [LIST_PRICE, half, half, double]
    assert [multiplier_at(steps, tier, 150) for tier in ("priority", "flex")] == [double, half]
    assert multiplier_at((), "priority", 150) == LIST_PRICE
