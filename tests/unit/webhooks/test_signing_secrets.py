"""Which secrets sign for an endpoint."""

from tokenyard.storage.encryption import Cipher
from tokenyard.webhooks.signing_secrets import give_secret, secrets_of
from tokenyard.webhooks.tables import WebhookEndpointRow

BEFORE, NOW = Cipher([b"b" * 32]), Cipher([b"n" * 32])


def test_a_former_secret_signs_too_until_its_time_is_over() -> None:
    row = WebhookEndpointRow(id="we_1")
    former = give_secret(row, NOW)
    secret = give_secret(row, NOW, former_until_ms=10)
    assert secrets_of(row, NOW, 9) == [secret, former]
    assert secrets_of(row, NOW, 10) == [secret]


def test_a_former_secret_that_cannot_be_read_any_more_keeps_the_new_one_from_nothing() -> None:
    row = WebhookEndpointRow(id="we_1")
    give_secret(row, BEFORE)
    assert secrets_of(row, NOW, 0) == []
    secret = give_secret(row, NOW, former_until_ms=10)
    assert secrets_of(row, NOW, 0) == [secret]
