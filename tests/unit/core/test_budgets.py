"""Which budgets a request is held on."""

from datetime import UTC, datetime

import pytest

from tokenyard.core.budgets import budgets_of, monthly, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars

ACME = OrganizationId("org_acme")
KEY = "key_1"
TURN_MS = round(datetime(2026, 4, 1, tzinfo=UTC).timestamp() * 1000)
SKEW_MS = 4_999


def names(at_ms: int) -> list[str]:
    return [budget.name for budget in budgets_of(ACME, {KEY: NanoDollars(5)}, at_ms)]


@pytest.mark.parametrize("before_ms", [-4_000, -1, 0, 1, 4_000])
@pytest.mark.parametrize("skew_ms", [-SKEW_MS, -1, 1, SKEW_MS])
def test_the_month_that_is_charged_is_held_whichever_clock_is_ahead(before_ms: int, skew_ms: int) -> None:
    """The gateway's clock chooses what to hold on, Redis dates the admission a moment later."""
    at_ms = TURN_MS - before_ms
    assert monthly(KEY, at_ms + skew_ms) in names(at_ms)


def test_far_from_its_turn_one_month_is_held() -> None:
    at_ms = TURN_MS - 60_000
    assert names(at_ms) == [wallet(ACME), monthly(KEY, at_ms)]
