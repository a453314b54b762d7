"""What is suspected to be personal data, and what is not."""

import pytest

from tokenyard_deployments.training.data.personal_data import kinds_in

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to Ann.Lee+shop@mail.example.co.uk!", "e-mail address"),
        ("<ann@example.com>", "e-mail address"),
        ("call +49 170 1234567 now", "phone number"),
        ("call 0049 30 901820", "phone number"),
        ("(030) 90 18 20 55", "phone number"),
        ("555-867-5309 or later", "phone number"),
        ("card 4111 1111 1111 1111.", "card number"),
        ("5500-0055-5555-5559", "card number"),
        ("378282246310005", "card number"),
        ("pay to DE89 3704 0044 0532 0130 00", "bank account"),
        ("GB82WEST12345698765432", "bank account"),
        ("AKIAIOSFODNN7EXAMPLE", "secret key"),
        ("use sk-abcdefghijklmnopqrstuv1234", "secret key"),
        (f"Bearer {JWT}", "secret key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "secret key"),
    ],
)
def test_what_is_suspected(text: str, kind: str) -> None:
    assert list(kinds_in(text)) == [kind]
    assert list(kinds_in(f"{text}\nand more\n{text}")) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "On 2024-01-31 10:20 we sold 1,234,567.89 for 10.000.000 yen",
        "4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "order 1234567890123456789012345",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
        "a @ b, @home, x@y",
        "version 1.2.3-4567, pi is 3.14159265358979",
        "sk-learn and ty-ping",
        "DE00 3704 0044 0532 0130 00",
        "0.123456789 and 192.168.100.200",
    ],
)
def test_what_is_not(text: str) -> None:
    assert list(kinds_in(text)) == []


@pytest.mark.parametrize("piece", ["a", "1 ", "1", "+1", "a@", "a.", "(0", "eyJ", "AB12 ", "-", "sk-", "0-", "a@b."])
def test_no_text_takes_long(piece: str) -> None:
    """Were a pattern to try every split of such a text, this would not end."""
    assert len(list(kinds_in(piece * (200_000 // len(piece))))) <= 1
