"""The secrets of an endpoint as SQL keeps them: encrypted, each bound to its endpoint."""

import contextlib

from cryptography.exceptions import InvalidTag

from tokenyard.storage.encryption import Cipher
from tokenyard.webhooks.event import hint_of, new_signing_secret
from tokenyard.webhooks.tables import WebhookEndpointRow

FORMER_MS = 86_400_000
"""So long a former secret signs beside the new one, where its owner wants that."""


def give_secret(row: WebhookEndpointRow, cipher: Cipher, *, former_until_ms: int | None = None) -> str:
    """Give an endpoint a new secret and return it; the one before signs too until then, or never again."""
    row.former_secret = None if former_until_ms is None else row.secret
    row.former_until_ms = former_until_ms
    secret = new_signing_secret()
    row.secret = cipher.encrypt(row.id, secret.encode())
    row.secret_hint = hint_of(secret)
    return secret


def secrets_of(row: WebhookEndpointRow, cipher: Cipher, now_ms: int) -> list[str]:
    """Return the secrets that sign now, but none that was encrypted with a key that is not known any more."""
    encrypted = [row.secret]
    if row.former_secret is not None and row.former_until_ms is not None and now_ms < row.former_until_ms:
        encrypted.append(row.former_secret)
    found: list[str] = []
    for one in encrypted:
        with contextlib.suppress(InvalidTag):
            found.append(cipher.decrypt(row.id, one).decode())
    return found
