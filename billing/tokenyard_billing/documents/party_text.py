"""How documents name a party: a name, the lines of its address, and what identifies it."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from tokenyard_billing.parties.countries import countries
from tokenyard_billing.parties.party import Buyer, Party, Seller


class PartyText(msgspec.Struct, frozen=True):
    """`lines` are the address, and `details` what identifies or reaches the party."""

    name: str
    lines: Sequence[str] = ()
    details: Sequence[str] = ()


def seller_text(seller: Seller | None, issuer: str) -> PartyText:
    """Name the issuer as it stated, or else as the settings call it."""
    if seller is None:
        return PartyText(issuer)
    local = [f"Tax number {seller.tax_registration}"] if seller.tax_registration else []
    return PartyText(seller.legal_name, list(_address(seller)), [*_identity(seller), *local, *_contact(seller)])


def buyer_text(buyer: Buyer | None, organization: str) -> PartyText:
    """Name the organization as it stated, or else by its id."""
    if buyer is None:
        return PartyText(organization)
    return PartyText(buyer.legal_name, list(_address(buyer)), [*_identity(buyer), *_contact(buyer)])


def iban_text(iban: str) -> str:
    """Write an IBAN in groups of four."""
    return re.sub(r"(.{4})(?=.)", r"\1 ", iban)


def _address(party: Party) -> Iterator[str]:
    place = " ".join(part for part in (party.postal_code, party.city) if part)
    country = countries().get(party.country, party.country)
    lines = (party.address_line_1, party.address_line_2, place, party.region, country)
    yield from (line for line in lines if line)


def _identity(party: Party) -> Iterator[str]:
    if party.tax_id:
        yield f"VAT ID {party.tax_id}"
    if party.registration_number:
        yield f"Registration {party.registration_number}"
    if party.electronic_address:
        yield f"Electronic address {party.electronic_address_scheme}:{party.electronic_address}"


def _contact(party: Party) -> Iterator[str]:
    yield from (text for text in (party.contact_name, party.phone, party.email) if text)
