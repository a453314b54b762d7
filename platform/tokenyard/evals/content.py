"""What tenants gave and models said, as it lies in SQL: encrypted, so that a copy of the database tells nobody's."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from tokenyard.storage.encryption import Cipher

Content = TypeVar("Content", bound=msgspec.Struct)


class EvalCipher:
    """Content belongs to the id of what it is of. `keys` can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._cipher = Cipher(keys)

    def encrypt(self, owner: str, content: msgspec.Struct) -> bytes:
        return self._cipher.encrypt(owner, msgspec.json.encode(content))

    def decrypt(self, owner: str, encrypted: bytes, kind: type[Content]) -> Content:
        """Return the content, or raise `cryptography.exceptions.InvalidTag` where no key fits."""
        return msgspec.json.decode(self._cipher.decrypt(owner, encrypted), type=kind)
