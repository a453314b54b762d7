"""Whatever the lines, their rates and the credit: the sums hold, and no tax is below 0."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from support.billing.stand import ACME
from tokenyard.core.money import CENT, WHOLE, Millionths, NanoDollars
from tokenyard_billing.ledger.journal import invoice_issued
from tokenyard_billing.taxes.amounts import LineTax, rounded_to, spread_credit, tax_of

AMOUNTS = st.integers(0, 10**15).map(NanoDollars)
HOWS = st.builds(LineTax, st.just("VAT"), st.integers(0, WHOLE).map(Millionths), st.booleans())


@given(amount=AMOUNTS, how=HOWS)
def test_net_and_tax_are_gross(amount: NanoDollars, how: LineTax) -> None:
    tax = tax_of(amount, how)
    assert 0 <= tax <= amount
    net = amount - tax if how.inclusive else amount
    exact = Fraction(how.rate, WHOLE) * (Fraction(amount * WHOLE, WHOLE + how.rate) if how.inclusive else amount)
    assert abs(tax - exact) <= Fraction(1, 2)
    assert tax - exact != Fraction(-1, 2), "a half goes up"
    assert abs(Fraction(net * how.rate, WHOLE) - tax) <= 1, "the net amount, taxed on top, comes to the same gross"


@given(amounts=st.lists(AMOUNTS, max_size=8), part=st.fractions(0, 1))
def test_credit_is_spread_whole(amounts: list[NanoDollars], part: Fraction) -> None:
    credit = NanoDollars(int(sum(amounts) * part))
    paid = spread_credit(credit, amounts)
    assert sum(paid) == credit
    assert all(0 <= each <= amount for each, amount in zip(paid, amounts, strict=True))


@given(lines=st.lists(st.tuples(AMOUNTS, HOWS), min_size=1, max_size=8), part=st.fractions(0, 1))
def test_what_is_issued_balances_in_whole_cents(lines: list[tuple[NanoDollars, LineTax]], part: Fraction) -> None:
    total = sum(amount for amount, _ in lines)
    paid = spread_credit(NanoDollars(int(total * part)), [amount for amount, _ in lines])
    taxes = [(tax_of(NanoDollars(amount - each), how), how) for (amount, how), each in zip(lines, paid, strict=True)]
    tax, included = sum(tax for tax, _ in taxes), sum(tax for tax, how in taxes if how.inclusive)
    billed = total - sum(paid)
    assert 0 <= included <= tax <= billed
    exact = NanoDollars(billed + tax - included)
    due = rounded_to(exact, CENT)
    assert due % CENT == 0
    assert -CENT < 2 * (due - exact) <= CENT
    if not billed:
        assert due == 0
        return
    posting = invoice_issued(
        *(ACME, NanoDollars(billed)),
        tax=NanoDollars(tax),
        tax_included=NanoDollars(included),
        rounding=NanoDollars(due - exact),
        reference="inv_1",
    )  # it refuses what does not sum to 0
    entries = {account.value: amount for account, amount in posting.entries}
    assert (entries["wallet"], entries.get("receivable", 0)) == (billed, -due)
