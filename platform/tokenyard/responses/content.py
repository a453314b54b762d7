"""What was said, as it lies in SQL: encrypted, so that a copy of the database tells nobody's conversations."""

from collections.abc import Sequence

import msgspec

from tokenyard.responses.ports import Json
from tokenyard.storage.encryption import Cipher


class Content(msgspec.Struct, frozen=True):
    """The items or messages that were given, the answer, and in which pieces that came."""

    input: Sequence[Json]
    output: Json
    deltas: Sequence[object] = []


class ContentCipher:
    """Content belongs to the id of its answer. `keys` can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._cipher = Cipher(keys)

    def encrypt(self, answer: str, content: Content) -> bytes:
        return self._cipher.encrypt(answer, msgspec.json.encode(content))

    def decrypt(self, answer: str, encrypted: bytes) -> Content:
        """Return the content, or raise `cryptography.exceptions.InvalidTag` where no key fits."""
        return msgspec.json.decode(self._cipher.decrypt(answer, encrypted), type=Content)
