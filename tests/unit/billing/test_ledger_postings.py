"""A posting that does not balance cannot be made."""

import pytest

from support.billing.stand import ACME
from tokenyard.core.money import NanoDollars
from tokenyard_billing.ledger.journal import (
    AccountName,
    Posting,
    UnbalancedPosting,
    credit_granted,
    reservation_closed,
    usage_charged,
)


def test_entries_that_do_not_sum_to_zero_are_refused() -> None:
    with pytest.raises(UnbalancedPosting):
        Posting(ACME, "grant", "x", ((AccountName.WALLET, 5), (AccountName.GRANTED, -4)))


def test_a_posting_that_moves_nothing_is_refused() -> None:
    with pytest.raises(UnbalancedPosting):
        usage_charged(ACME, NanoDollars(0), reference="x")
    with pytest.raises(UnbalancedPosting):
        credit_granted(ACME, NanoDollars(0), reference="x", reason="", actor="")


@pytest.mark.parametrize(
    ("reserved", "cost", "entries"),
    [
        (100, 60, {"reserved": -100, "wallet": 40, "revenue": 60}),
        (100, 100, {"reserved": -100, "revenue": 100}),
        (100, 130, {"reserved": -100, "wallet": -30, "revenue": 130}),
        (100, 0, {"reserved": -100, "wallet": 100}),
        (0, 60, {"wallet": -60, "revenue": 60}),
    ],
)
def test_closing_a_reservation_charges_it_first_and_the_wallet_for_the_rest(
    reserved: int, cost: int, entries: dict[str, int]
) -> None:
    posting = reservation_closed(ACME, reserved=NanoDollars(reserved), cost=NanoDollars(cost), reference="ftjob")
    assert posting is not None
    assert {account.value: amount for account, amount in posting.entries} == entries


def test_closing_nothing_posts_nothing() -> None:
    assert reservation_closed(ACME, reserved=NanoDollars(0), cost=NanoDollars(0), reference="ftjob") is None
