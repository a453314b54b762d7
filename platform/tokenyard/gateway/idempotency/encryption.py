"""What Redis is given of a request and its reply: names and fingerprints that tell nothing, and encrypted replies.

All of it hangs on a secret of the installation and on the organization, so nobody who reads Redis, and no other
tenant, can read it or guess what it is of.
"""

import asyncio
import hmac
import zlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag

from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.storage.encryption import Cipher

LARGE_BYTES = 64 * 1024
"""More than these take milliseconds, which the event loop has not."""
_DIGEST = "sha256"
_LEVEL = 1
_SHORT_BYTES = 16


class Unreadable(ValueError):
    """Sealed under another secret, for another organization or key, or changed since."""


class ReplyCipher:
    """AES-256-GCM under a key for each organization, bound to the name that the reply is kept by."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def name(self, organization: OrganizationId, project: ProjectId, key: str) -> str:
        """Return what the reply under an idempotency key of a project is kept by."""
        return self._digest(organization, b"name", f"{project}\0{key}".encode())[:_SHORT_BYTES].hex()

    def fingerprint(self, organization: OrganizationId, endpoint: str, body: bytes) -> bytes:
        """Return what tells one request to an endpoint from another."""
        return self._digest(organization, b"body", endpoint.encode() + b"\0" + body)[:_SHORT_BYTES]

    async def encrypt(self, organization: OrganizationId, name: str, data: bytes) -> bytes:
        """Return `data`, made shorter: the events of a stream are much alike."""
        return await _call(len(data), self._encrypted, organization, name, data)

    async def decrypt(self, organization: OrganizationId, name: str, encrypted: bytes) -> bytes:
        """Return what was encrypted, or raise `Unreadable`."""
        return await _call(len(encrypted), self._decrypted, organization, name, encrypted)

    def _encrypted(self, organization: OrganizationId, name: str, data: bytes) -> bytes:
        return self._cipher(organization).encrypt(name, zlib.compress(data, _LEVEL))

    def _decrypted(self, organization: OrganizationId, name: str, encrypted: bytes) -> bytes:
        try:
            return zlib.decompress(self._cipher(organization).decrypt(name, encrypted))
        except (InvalidTag, ValueError) as error:
            raise Unreadable("not encrypted with this secret, for this organization and key") from error

    def _cipher(self, organization: OrganizationId) -> Cipher:
        return Cipher([self._digest(organization, b"cipher", b"")])

    def _digest(self, organization: OrganizationId, purpose: bytes, data: bytes) -> bytes:
        key = hmac.digest(self._secret, purpose + b"\0" + organization.encode(), _DIGEST)
        return hmac.digest(key, data, _DIGEST)


async def _call(size: int, call: Callable[[OrganizationId, str, bytes], bytes], *of: Any) -> bytes:
    return await asyncio.to_thread(call, *of) if size > LARGE_BYTES else call(*of)
