"""Which percents of budgets are reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.budgets import AlertRules
from tokenyard.core.money import NanoDollars
from tokenyard_billing.alerts.use import MONTHLY_LIMIT, WALLET, BudgetUse, budgets_in_use, reached


def test_the_wallet_is_measured_by_what_it_had_in_the_month() -> None:
    rules = AlertRules((50,), {"org": NanoDollars(1000), "key": NanoDollars(10)})
    assert budgets_in_use("org", {"org": 30, "proj": 30, "key": 9}, rules, available=70) == [
        BudgetUse(WALLET, "org", 30, 100),
        BudgetUse(MONTHLY_LIMIT, "org", 30, 1000),
        BudgetUse(MONTHLY_LIMIT, "key", 9, 10),
    ]


@pytest.mark.parametrize(
    ("used", "total", "percents"),
    [
        (0, 100, []),
        (49, 100, []),
        (50, 100, [50]),
        (79, 100, [50]),
        (80, 100, [50, 80]),
        (100, 100, [50, 80, 100]),
        (130, 100, [50, 80, 100]),
        (1, 0, [50, 80, 100]),
        (1, -5, [50, 80, 100]),
        (0, 0, []),
    ],
)
def test_percents_are_reached_exactly(used: int, total: int, percents: list[int]) -> None:
    found = reached([BudgetUse(WALLET, "org", used, total)], (100, 50, 80, 80))
    assert [one.percent for one in found] == percents


@given(st.integers(1, 10**18), st.integers(1, 10**18), st.integers(1, 100))
def test_no_rounding_decides(used: int, total: int, percent: int) -> None:
    found = reached([BudgetUse(WALLET, "org", used, total)], [percent])
    assert bool(found) == (used * 100 >= total * percent)
