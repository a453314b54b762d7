"""Tells who holds a key: from memory where it was seen in the last minutes, else from SQL."""

import time
from collections.abc import Callable, Mapping

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import PermissionDenied, Unauthenticated, Unavailable
from tokenyard.core.principal import Operator, Principal
from tokenyard.storage.change_feed import Listener
from tokenyard.storage.read_cache import ReadCache
from tokenyard.tenancy.authentication.lent_keys import LentKey, LentKeys, for_inference
from tokenyard.tenancy.authentication.unknown_keys import UnknownKeys
from tokenyard.tenancy.changes import OPERATOR_KEY_ENDED, ORGANIZATION_CHANGED, PLAN_CHANGED
from tokenyard.tenancy.keys import MAX_LENGTH, Credential, KeyHasher, redacted_guess, role_of
from tokenyard.tenancy.operator_store import TenancyOperatorStore

FRESH_S = 30.0
STALE_S = 600.0
CACHED_KEYS = 10_000
FOREIGN_ADDRESS = "ip_not_authorized"


class KeyAuthenticator:
    """`web.auth.Authenticator` for every app, and for the request path.

    Malformed keys are refused without a look-up. Unknown ones are remembered as long as known ones, and looked up at a
    small rate. A key that was last seen minutes ago is served from memory while it is looked up: what ends a key is
    pushed to every process, and admission compares its revision. While SQL is down what is cached serves on for ten
    minutes; a key that is not cached then raises `Unavailable`. The cache holds hashes, never keys.
    """

    def __init__(
        self,
        store: TenancyOperatorStore,
        hasher: KeyHasher,
        clock: Clock,
        *,
        lent: LentKeys | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `clock` for the expiry of keys and `now` (seconds, monotonic) for the age of cached ones.

        `lent` reads what stands for a key; without it nothing does.
        """
        self._lent = lent
        self._hasher = hasher
        self._clock = clock
        self._cache: ReadCache[tuple[str, ...], Credential] = ReadCache(
            lambda hashes, _previous: store.credential(hashes),
            fresh_s=FRESH_S,
            stale_s=STALE_S,
            size=CACHED_KEYS,
            now=now,
        )
        self._unknown = UnknownKeys(now)

    async def tenant(self, secret: str, address: str = "") -> Principal:
        return _as_tenant(await self._holder(secret, address))

    async def fresh_tenant(self, secret: str, address: str = "") -> Principal:
        return _as_tenant(await self._holder(secret, address, latest=True))

    async def operator(self, secret: str, address: str = "") -> Operator:
        holder = await self._holder(secret, address)
        if isinstance(holder, Operator):
            return holder
        raise PermissionDenied("This needs an operator's key (`ty-admin-...`).")

    def listeners(self) -> Mapping[str, Listener]:
        """Return what is to follow the change feed in every process that authenticates."""
        return {
            ORGANIZATION_CHANGED: self.organization_changed,
            PLAN_CHANGED: self.plan_changed,
            OPERATOR_KEY_ENDED: self.operator_key_ended,
        }

    async def organization_changed(self, organization: str | None) -> None:
        """Look up the keys of an organization, or all tenants' keys, afresh from now on."""
        self._cache.outdate_where(
            lambda credential: (
                isinstance(credential.holder, Principal) and organization in (None, credential.holder.organization)
            )
        )

    async def plan_changed(self, plan: str | None) -> None:
        """Look up the keys of organizations on a plan, or on any, afresh from now on."""
        self._cache.outdate_where(lambda credential: credential.plan is not None and plan in (None, credential.plan))

    async def operator_key_ended(self, key: str | None) -> None:
        """Look up an operator's key, or all of them, afresh from now on."""
        self._cache.outdate_where(
            lambda credential: isinstance(credential.holder, Operator) and key in (None, credential.holder.key)
        )

    async def _holder(self, secret: str, address: str, *, latest: bool = False) -> Principal | Operator:
        if self._lent is not None and (lent := self._lent.read(secret)) is not None:
            return await self._borrower(lent, address, latest=latest)
        if len(secret) > MAX_LENGTH:
            raise _incorrect(secret)
        hashes = self._hasher.hashes(secret)
        credential = None if latest else self._cache.peek(hashes)
        if credential is None and role_of(secret) is not None:
            credential = await self._looked_up(hashes, address, latest=latest)
        return self._entitled(secret, credential, address)

    async def _borrower(self, lent: LentKey, address: str, *, latest: bool) -> Principal:
        hashes = (lent.hash,)
        credential = None if latest else self._cache.peek(hashes)
        if credential is None:
            credential = await self._looked_up(hashes, address, latest=latest)
        if credential is not None:  # from where a key may be used is said of its holder, who is not here
            credential = msgspec.structs.replace(credential, addresses=None)
        holder = self._entitled("", credential, address)
        if lent.expires * 1000 <= self._clock.now_ms() or not isinstance(holder, Principal):
            raise _incorrect("")
        return for_inference(holder)

    def _entitled(self, secret: str, credential: Credential | None, address: str) -> Principal | Operator:
        if credential is None:
            raise _incorrect(secret)
        if credential.expires is not None and credential.expires * 1000 <= self._clock.now_ms():
            raise Unauthenticated(f"The API key {redacted_guess(secret)} has expired.", code="api_key_expired")
        if credential.addresses is not None and address not in credential.addresses:
            raise Unauthenticated(f"Your IP address, {address or 'unknown'}, is not authorized.", code=FOREIGN_ADDRESS)
        return credential.holder

    async def _looked_up(self, hashes: tuple[str, ...], address: str, *, latest: bool) -> Credential | None:
        look_up = self._cache.latest if latest else self._cache.get
        if latest:
            self._cache.outdate(hashes)
        if self._cache.knows(hashes):
            return await look_up(hashes)
        self._unknown.spend(address)
        try:
            found = await look_up(hashes)
        except Unavailable:
            self._unknown.refund(address)
            raise
        if found is not None:
            self._unknown.refund(address)
        return found


def _as_tenant(holder: Principal | Operator) -> Principal:
    if isinstance(holder, Principal):
        return holder
    raise PermissionDenied("This is an operator's key. Use a key of an organization here.")


def _incorrect(secret: str) -> Unauthenticated:
    return Unauthenticated(f"Incorrect API key provided: {redacted_guess(secret)}. It may have been revoked.")
