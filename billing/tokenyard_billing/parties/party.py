"""Sellers and buyers as invoices name them: what EN 16931, the European e-invoice, wants of them (BT- numbers).

What is not stated is empty.
"""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from tokenyard_billing.parties.countries import known_country

# No control characters, and none that turn the direction of what follows: it would read as something else.
_ODD = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_LINE = rf"^[^{_ODD}]*$"
_LINES = r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
_EMAIL = rf"^([^@\s{_ODD}]+@[^@\s{_ODD}]+)?$"
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{10,30}")


def _iban(text: str) -> str:
    """Return an IBAN without spaces, or raise `ValueError` where its check digits do not fit."""
    iban = re.sub(r"\s", "", text).upper()
    if iban and not (_IBAN.fullmatch(iban) and _as_number(iban[4:] + iban[:4]) % 97 == 1):
        raise ValueError("this is no IBAN")
    return iban


def _as_number(text: str) -> int:
    return int("".join(str(int(character, 36)) for character in text))


TextLine = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=_LINE)]
TextLines = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=_LINES)]
Country = Annotated[str, AfterValidator(known_country)]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=_EMAIL)]
# A code of the list EAS: four digits such as 0088 (GLN), or EM, O3, AN and the like.
AddressScheme = Annotated[str, StringConstraints(pattern=r"^([0-9]{4}|[A-Z][A-Z0-9])?$")]
Iban = Annotated[TextLine, AfterValidator(_iban)]
Bic = Annotated[str, StringConstraints(pattern=r"^([A-Z]{6}[A-Z0-9]{2}([A-Z0-9]{3})?)?$")]


class Party(BaseModel, extra="forbid", frozen=True):
    """A company or a person. `country` is a code of ISO 3166-1, `electronic_address_scheme` one of EAS.

    `tax_id` is the identifier for VAT, or what stands for it elsewhere; `registration_number` is of the register of
    companies.
    """

    legal_name: Annotated[TextLine, Field(min_length=1)]  # BT-27, BT-44
    address_line_1: TextLine = ""  # BT-35, BT-50
    address_line_2: TextLine = ""  # BT-36, BT-51
    city: TextLine = ""  # BT-37, BT-52
    postal_code: TextLine = ""  # BT-38, BT-53
    region: TextLine = ""  # BT-39, BT-54
    country: Country  # BT-40, BT-55
    tax_id: TextLine = ""  # BT-31, BT-48
    registration_number: TextLine = ""  # BT-30, BT-47
    contact_name: TextLine = ""  # BT-41, BT-56
    phone: TextLine = ""  # BT-42, BT-57
    email: Email = ""  # BT-43, BT-58
    electronic_address: TextLine = ""  # BT-34, BT-49
    electronic_address_scheme: AddressScheme = ""

    @model_validator(mode="after")
    def _address_with_scheme(self) -> Self:
        if bool(self.electronic_address) != bool(self.electronic_address_scheme):
            raise ValueError("an electronic address and its scheme go together")
        return self


class Buyer(Party):
    """An organization. Invoices state its `buyer_reference` and `purchase_order`, so that it knows them by these."""

    buyer_reference: TextLine = ""  # BT-10
    purchase_order: TextLine = ""  # BT-13


class Seller(Party):
    """Who issues invoices, and how these are paid. `tax_registration` is a local number, beside that for VAT."""

    tax_registration: TextLine = ""  # BT-32
    account_name: TextLine = ""  # BT-85
    bank_name: TextLine = ""
    iban: Iban = ""  # BT-84
    bic: Bic = ""  # BT-86
    payment_terms: TextLines = ""  # BT-20
