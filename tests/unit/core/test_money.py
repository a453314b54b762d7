"""Amounts are exact or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.money import InexactAmount, from_dollars, rate_from_dollars_per_million, to_dollars


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
