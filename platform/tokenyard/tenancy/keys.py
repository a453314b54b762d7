"""The format of API keys: `ty-` (tenants) or `ty-admin-` (operators), 30 random characters, 6 of checksum.

The checksum refuses mistyped keys and random text without a look into any store. What is stored is an HMAC under a
pepper; a fast hash is right because a key carries 178 random bits.
"""

import re
import zlib
from collections.abc import Sequence

import msgspec

from tokenyard.core.ids import ALPHABET, random_text
from tokenyard.core.principal import Operator, Principal, Role
from tokenyard.metering.keyed_hash import KeyedHash
from tokenyard.web.client_address import Networks

_RANDOM_LENGTH = 30
_CHECKSUM_LENGTH = 6  # 62^6 > 2^32
_PREFIXES = {Role.TENANT: "ty-", Role.OPERATOR: "ty-admin-"}
_KEY = re.compile(rf"ty-(admin-)?[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)
MAX_LENGTH = len(_PREFIXES[Role.OPERATOR]) + _RANDOM_LENGTH + _CHECKSUM_LENGTH


class Credential(msgspec.Struct, frozen=True):
    """Who holds a live key, until when (unix seconds), from where it may be used, and which plan had a say in that."""

    holder: Principal | Operator
    expires: int | None = None
    addresses: Networks | None = None
    plan: str | None = None


class Pepper(msgspec.Struct, frozen=True):
    """One version of the secret under which keys are hashed."""

    version: int
    secret: bytes


class KeyHasher:
    """Hashes keys; the first pepper is for new keys, the others still open old ones."""

    def __init__(self, peppers: Sequence[Pepper]) -> None:
        self._version = peppers[0].version
        self._keyed = tuple(KeyedHash(pepper.secret) for pepper in peppers)

    @property
    def version(self) -> int:
        """The version of the pepper that new keys are hashed under."""
        return self._version

    def hash(self, secret: str) -> str:
        """Return the hex HMAC-SHA256 of a key under the current pepper."""
        return self._keyed[0].hex(_encoded(secret))

    def hashes(self, secret: str) -> tuple[str, ...]:
        """Return the key's hash under every pepper."""
        encoded = _encoded(secret)
        return tuple([keyed.hex(encoded) for keyed in self._keyed])


def new_secret(role: Role) -> str:
    body = _PREFIXES[role] + random_text(_RANDOM_LENGTH)
    return body + _checksum(body)


def role_of(secret: str) -> Role | None:
    """Return what the key is for, or None where it is malformed or its checksum is wrong."""
    match = _KEY.fullmatch(secret)
    if match is None or _checksum(secret[:-_CHECKSUM_LENGTH]) != secret[-_CHECKSUM_LENGTH:]:
        return None
    return Role.OPERATOR if match[1] else Role.TENANT


def redacted(role: Role, last4: str) -> str:
    """Return what may be shown of a key after its creation."""
    return f"{_PREFIXES[role]}...{last4}"


def redacted_guess(secret: str) -> str:
    """Return what an error may show of a text that somebody sent as a key."""
    return f"{secret[:3]}...{secret[-4:]}" if len(secret) >= 20 else "..."


def _encoded(secret: str) -> bytes:
    # `surrogatepass`, because no text that a header may carry must fail here.
    return secret.encode("utf-8", "surrogatepass")


def _checksum(body: str) -> str:
    rest = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
