"""AES-256-GCM for what must not be read where it lies: in SQL, in Redis, in their copies."""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class Cipher:
    """Encrypts with the first of `keys` (32 bytes each) and decrypts with any, so that they can be rotated.

    What is encrypted is bound to the name of what it is of: under another name it does not decrypt.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def encrypt(self, name: str, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, data, name.encode())

    def decrypt(self, name: str, encrypted: bytes) -> bytes:
        """Return the data, or raise `cryptography.exceptions.InvalidTag` where no key fits."""
        nonce, data = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, data, name.encode())
            except InvalidTag:
                continue
        raise InvalidTag
