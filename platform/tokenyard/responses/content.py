"""What was said, as it lies in SQL: encrypted, so that a copy of the database tells nobody's conversations."""

import os
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenyard.responses.ports import Json

_NONCE_BYTES = 12


class Content(msgspec.Struct, frozen=True):
    """The items or messages that were given, and the answer."""

    input: Sequence[Json]
    output: Json


class ContentCipher:
    """Encrypts with the first of `keys` (32 bytes each) and decrypts with any, so that they can be rotated.

    Content belongs to the id of its answer: under another one it does not decrypt.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def encrypt(self, answer: str, content: Content) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, msgspec.json.encode(content), answer.encode())

    def decrypt(self, answer: str, encrypted: bytes) -> Content:
        """Return the content, or raise `cryptography.exceptions.InvalidTag` where no key fits."""
        nonce, sealed = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return msgspec.json.decode(cipher.decrypt(nonce, sealed, answer.encode()), type=Content)
            except InvalidTag:
                continue
        raise InvalidTag
