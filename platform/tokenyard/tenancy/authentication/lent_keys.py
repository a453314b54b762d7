"""Bearers with which the platform's own workers ask the gateway in the name of a tenant's key.

What is asked under one is limited and charged as what is asked under the key itself, and ends with it. It is for
inference alone, whatever the key may do, and only where the key may do that.
"""

import hmac
from typing import NamedTuple

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.principal import KeyScope, Principal
from tokenyard.metering.keyed_hash import KeyedHash

_PREFIX = "ty-lent-"
_MAX_LENGTH = 256


class LentKey(NamedTuple):
    """The hash under which the key is stored, and until when it is lent, in unix seconds."""

    hash: str
    expires: int


class LentKeys:
    def __init__(self, secret: bytes, clock: Clock) -> None:
        """Take a secret that all processes of the installation share, and use for nothing else."""
        self._keyed = KeyedHash(secret)
        self._clock = clock

    def lend(self, key_hash: str, *, for_s: int) -> str:
        """Return a bearer for the key that is stored under this hash."""
        said = f"{key_hash}.{self._clock.now_ms() // 1000 + for_s}"
        return f"{_PREFIX}{said}.{self._keyed.hex(said.encode())}"

    def read(self, bearer: str) -> LentKey | None:
        """Return which key a bearer stands for, whether that still is or not; None where we did not make it."""
        if not bearer.startswith(_PREFIX) or len(bearer) > _MAX_LENGTH:
            return None
        said, _, signature = bearer.removeprefix(_PREFIX).rpartition(".")
        # `surrogatepass`, because no text that a header may carry must fail here.
        made, given = (text.encode("utf-8", "surrogatepass") for text in (said, signature))
        if not hmac.compare_digest(self._keyed.hex(made).encode(), given):
            return None
        key_hash, _, expires = said.partition(".")
        return LentKey(key_hash, int(expires))


def for_inference(holder: Principal) -> Principal:
    """Return the holder of a key that was lent: it may infer where the key may, and nothing else."""
    allowed = holder.scopes is None or KeyScope.INFERENCE in holder.scopes
    return msgspec.structs.replace(holder, scopes=frozenset([KeyScope.INFERENCE] if allowed else []))
