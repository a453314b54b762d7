"""A price times a multiplier: each rate is the exact product, rounded half up, and whoever has the card finds it."""

from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.ids import PriceId
from tokenyard.core.money import (
    LIST_PRICE,
    MAX_MULTIPLIER,
    Multiplier,
    NanoDollars,
    Price,
    inference_cost,
    multiplied,
    multiplier_from,
    training_cost,
    worst_case_cost,
)
from tokenyard.core.usage import TokenUsage
from tokenyard_billing.pricing.prices import PriceList, rated_lines
from tokenyard_billing.pricing.rate_cards import MAX_RATE, RateCard

KINDS = ("input", "cached_input", "output", "training")
rates = st.integers(0, MAX_RATE).map(NanoDollars)
listed_prices = st.builds(Price, st.just(PriceId("2026/small")), st.just("small"), rates, rates, rates, rates)
multipliers = st.integers(0, MAX_MULTIPLIER).map(Multiplier)
usages = st.builds(
    lambda fresh, cached, completion: TokenUsage(fresh + cached, completion, cached),
    *[st.integers(0, 10**6)] * 3,
)


@given(listed_prices, multipliers)
def test_each_rate_is_the_exact_product_rounded_half_up(listed: Price, multiplier: Multiplier) -> None:
    price = multiplied(listed, multiplier)
    for kind in KINDS:
        exact = Fraction(getattr(listed, kind)) * Fraction(multiplier, LIST_PRICE)
        assert getattr(price, kind) == floor(exact + Fraction(1, 2))
    assert (price == listed) == (multiplier == LIST_PRICE)


@given(listed_prices, multipliers)
def test_its_id_says_all_that_is_needed_to_work_it_out_again(listed: Price, multiplier: Multiplier) -> None:
    price = multiplied(listed, multiplier)
    known = PriceList([RateCard("2026", 0, (listed,))])
    assert known.by_id(price.id) == price
    assert known.has_card_of(price.id)
    card, _, stated = price.id.partition("@")
    assert card == listed.id
    assert multiplier_from(stated or "1") == multiplier


@given(listed_prices, multipliers, usages, st.integers(0, 10**9))
def test_hold_charge_and_lines_agree(listed: Price, multiplier: Multiplier, usage: TokenUsage, trained: int) -> None:
    price = multiplied(listed, multiplier)
    lines = rated_lines(
        "small",
        price,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        trained_tokens=trained,
    )
    cost = inference_cost(price, usage)
    assert sum(line.amount for line in lines) == cost + training_cost(price, trained)
    held = worst_case_cost(price, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
    assert cost <= held
