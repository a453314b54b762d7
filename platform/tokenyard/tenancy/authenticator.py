"""Tells who holds a key: from memory where it was seen in the last half minute, else from SQL."""

import time
from collections.abc import Callable

from tokenyard.core.clock import Clock
from tokenyard.core.errors import PermissionDenied, Unauthenticated
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import Operator, Principal
from tokenyard.storage.read_cache import ReadCache
from tokenyard.tenancy.keys import MAX_LENGTH, Credential, KeyHasher, redacted_guess, role_of
from tokenyard.tenancy.operator_store import TenancyOperatorStore

FRESH_S = 30.0
STALE_S = 600.0
CACHED_KEYS = 10_000


class KeyAuthenticator:
    """`web.auth.Authenticator` for every app, and for the request path.

    Malformed keys are refused without a look-up. Unknown ones are remembered as long as known ones. While SQL is down
    what is cached serves on for ten minutes; a key that is not cached then raises `Unavailable`. The cache holds
    hashes, never keys.
    """

    def __init__(
        self, store: TenancyOperatorStore, hasher: KeyHasher, clock: Clock, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Take `clock` for the expiry of keys and `now` (seconds, monotonic) for the age of cached ones."""
        self._hasher = hasher
        self._clock = clock
        self._cache: ReadCache[tuple[str, ...], Credential] = ReadCache(
            lambda hashes, _previous: store.credential(hashes),
            fresh_s=FRESH_S,
            stale_s=STALE_S,
            size=CACHED_KEYS,
            now=now,
        )

    async def tenant(self, secret: str) -> Principal:
        holder = await self._holder(secret)
        if isinstance(holder, Principal):
            return holder
        raise PermissionDenied("This is an operator's key. Use a key of an organization here.")

    async def fresh_tenant(self, secret: str) -> Principal:
        self._cache.forget(self._hasher.hashes(secret[:MAX_LENGTH]))
        return await self.tenant(secret)

    async def operator(self, secret: str) -> Operator:
        holder = await self._holder(secret)
        if isinstance(holder, Operator):
            return holder
        raise PermissionDenied("This needs an operator's key (`ty-admin-...`).")

    def forget(self, key: ApiKeyId) -> None:
        """Drop a key from this process's cache, because it was just changed."""
        self._cache.forget_where(lambda credential: credential.holder.key == key)

    async def _holder(self, secret: str) -> Principal | Operator:
        if len(secret) > MAX_LENGTH:
            raise _incorrect(secret)
        hashes = self._hasher.hashes(secret)
        credential = self._cache.peek(hashes)
        if credential is None and role_of(secret) is not None:
            credential = await self._cache.get(hashes)
        if credential is None or (credential.expires is not None and credential.expires * 1000 <= self._clock.now_ms()):
            raise _incorrect(secret)
        return credential.holder


def _incorrect(secret: str) -> Unauthenticated:
    return Unauthenticated(f"Incorrect API key provided: {redacted_guess(secret)}. It may be revoked or expired.")
