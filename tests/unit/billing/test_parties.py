"""What a party may state."""

import pytest
from pydantic import ValidationError

from tokenyard_billing.parties.countries import countries
from tokenyard_billing.parties.party import Buyer, Seller

NAMED = {"legal_name": "Acme", "country": "DE"}


def test_a_name_and_a_country_suffice() -> None:
    assert Buyer.model_validate(NAMED).model_dump(exclude_defaults=True) == NAMED


def test_all_countries_are_known() -> None:
    assert len(countries()) == 249
    assert {"DE", "US", "JP", "XK"} & countries().keys() == {"DE", "US", "JP"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"legal_name": " "},
        {"legal_name": "x" * 201},
        {"country": "de"},
        {"country": "UK"},
        {"country": ""},
        {"city": "two\nlines"},
        {"city": "NUL\x00"},
        {"city": "turned\u202eround"},
        {"email": "nobody"},
        {"email": "NUL\x00@example.com"},
        {"email": "turned\u202eround@example.com"},
        {"electronic_address": "5060012345675"},
        {"electronic_address_scheme": "0088"},
        {"electronic_address": "x", "electronic_address_scheme": "GLN"},
        {"colour": "red"},
        {"postal_code": 10623},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Buyer.model_validate(NAMED | wrong)


def test_bank_details_are_checked() -> None:
    seller = Seller.model_validate(NAMED | {"iban": "de89 3704 0044 0532 0130 00", "payment_terms": "a\nb"})
    assert (seller.iban, seller.payment_terms) == ("DE89370400440532013000", "a\nb")
    for wrong in ({"iban": "DE88370400440532013000"}, {"iban": "12"}, {"bic": "COBA"}):
        with pytest.raises(ValidationError):
            Seller.model_validate(NAMED | wrong)
