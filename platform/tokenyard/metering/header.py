"""The signed header that tells a replica whose request it serves.

Format: base64url(JSON claims) + "." + hex HMAC-SHA256 of that text. It is not encrypted: it holds ids, and what
the client calls its own user.
"""

import base64
import binascii
import hmac
from functools import lru_cache

import msgspec

from tokenyard.core.usage import MeterClaims
from tokenyard.metering.keyed_hash import KeyedHash

HEADER = "x-tokenyard-meter"

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[MeterClaims] = msgspec.json.Decoder(MeterClaims)


class InvalidMeter(ValueError):
    """The header is missing, malformed, or not signed with our secret."""


def sign(claims: MeterClaims, secret: bytes) -> str:
    payload = base64.urlsafe_b64encode(_ENCODER.encode(claims))
    return f"{payload.decode()}.{_signature(payload, secret)}"


def verify(value: str, secret: bytes) -> MeterClaims:
    """Return the claims of a header's value; one malformed, or not signed by us, raises `InvalidMeter`."""
    payload, _, signature = value.partition(".")
    if not hmac.compare_digest(_signature(payload.encode(), secret), signature):
        raise InvalidMeter("the meter header is not signed with this installation's secret")
    try:
        return _DECODER.decode(base64.urlsafe_b64decode(payload))
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidMeter("the meter header cannot be read") from error


@lru_cache(maxsize=10_000)
def cache_salt(organization: str, secret: bytes) -> str:
    """Return the salt that keeps one organization's prefix cache apart from all others'."""
    return hmac.digest(secret, b"cache-salt:" + organization.encode(), "sha256").hex()


def _signature(payload: bytes, secret: bytes) -> str:
    return _keyed(secret).hex(b"meter:" + payload)


@lru_cache(maxsize=16)
def _keyed(secret: bytes) -> KeyedHash:
    return KeyedHash(secret)
