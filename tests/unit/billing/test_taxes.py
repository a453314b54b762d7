"""What tax comes to, and by which rate."""

import pytest

from tokenyard.core.money import CENT, Millionths, NanoDollars, rate_from_percent
from tokenyard_billing.taxes.amounts import UNTAXED, LineTax, rounded_to, spread_credit, spread_over_groups, tax_of
from tokenyard_billing.taxes.terms import TaxProfile, TaxTerms


@pytest.mark.parametrize(
    ("amount", "percent", "inclusive", "tax"),
    [
        (100, "19", False, 19),
        (119, "19", True, 19),
        (12_345_678_900, "19", False, 2_345_678_991),
        (1_000_000_000, "10", True, 90_909_091),  # 90,909,090.909...
        (1, "50", False, 1),  # a half goes up
        (1, "49.9999", False, 0),
        (3, "50", True, 1),
        (2, "33.3333", True, 0),  # 0.49999...
        (100, "8.875", False, 9),  # 8.875
        (0, "19", False, 0),
        (10**18, "100", False, 10**18),
        (10**18, "100", True, 10**18 // 2),
        (100, "0", True, 0),
    ],
)
def test_tax_is_rounded_half_up_to_the_nano_dollar(amount: int, percent: str, inclusive: bool, tax: int) -> None:
    assert tax_of(NanoDollars(amount), LineTax("VAT", rate_from_percent(percent), inclusive)) == tax


def test_credit_pays_for_amounts_in_their_order() -> None:
    amounts = [NanoDollars(each) for each in (5, 0, 10, 7)]
    assert spread_credit(NanoDollars(12), amounts) == [5, 0, 7, 0]
    assert spread_credit(NanoDollars(0), amounts) == [0, 0, 0, 0]
    assert spread_credit(NanoDollars(100), amounts) == amounts


def test_credit_pays_of_each_group_for_what_it_comes_to() -> None:
    groups = [[NanoDollars(each) for each in group] for group in ((-10, 15), (3,), (-4, -5), (7, -1))]
    assert spread_over_groups(NanoDollars(12), groups) == [[0, 5], [3], [0, 0], [4, 0]]


@pytest.mark.parametrize(
    ("amount", "payable"), [(0, 0), (4_999_999, 0), (5_000_000, CENT), (CENT, CENT), (14_999_999, CENT)]
)
def test_whole_cents_are_paid(amount: int, payable: int) -> None:
    assert rounded_to(NanoDollars(amount), CENT) == payable


def how(percent: str) -> LineTax:
    return LineTax("tax", rate_from_percent(percent))


RATES = {"US": [(0, how("1")), (100, how("2"))], "US-CA": [(50, how("7.25"))], "DE": [(0, how("19"))]}


@pytest.mark.parametrize(
    ("jurisdiction", "end_ms", "rate"),
    [
        ("US-CA", 51, 72_500),
        ("US-CA", 50, 10_000),  # its own is of the next period
        ("US-CA", 1_000, 72_500),
        ("US-NY", 100, 10_000),
        ("US-NY", 101, 20_000),
        ("DE-BY", 1, 190_000),
        ("DE", 0, 0),  # before the first
        ("FR", 1_000, 0),
        ("", 1_000, 0),
    ],
)
def test_the_nearest_rate_that_is_in_force_in_the_last_millisecond_decides(
    jurisdiction: str, end_ms: int, rate: int
) -> None:
    terms = TaxTerms([("1970-01", TaxProfile(jurisdiction))], RATES)
    assert terms.tax("2026-03", end_ms).rate == rate


def test_a_profile_holds_from_its_period_on() -> None:
    german, exempt = TaxProfile("DE"), TaxProfile("DE", "exempt", "a hospital")
    terms = TaxTerms([("2026-02", german), ("2026-04", exempt)], RATES)
    assert terms.tax("2026-01", 1_000) == UNTAXED
    assert [terms.tax(period, 1_000).rate for period in ("2026-02", "2026-03")] == [Millionths(190_000)] * 2
    assert terms.tax("2026-04", 1_000) == UNTAXED
    assert terms.profile("2026-05") == exempt
