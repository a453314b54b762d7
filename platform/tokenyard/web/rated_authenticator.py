"""Bounds how often an organization may ask the control plane, where its limits do not count."""

import time
from collections.abc import Callable

from tokenyard.core.errors import RateLimited
from tokenyard.core.principal import Operator, Principal
from tokenyard.web.auth import Authenticator
from tokenyard.web.token_buckets import TokenBuckets

PER_S, BURST = 100, 1_000  # in each process
ORGANIZATIONS = 10_000


class RatedAuthenticator:
    """`Authenticator` for everything but the paid endpoints; operators have no limit."""

    def __init__(self, inner: Authenticator, now: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._now = now
        self._buckets = TokenBuckets(PER_S, BURST, size=ORGANIZATIONS, now=now)

    async def tenant(self, secret: str, address: str = "") -> Principal:
        return self._counted(await self._inner.tenant(secret, address))

    async def fresh_tenant(self, secret: str, address: str = "") -> Principal:
        # A look into the cache first: who asks too often must not reach SQL either.
        self._counted(await self._inner.tenant(secret, address))
        return await self._inner.fresh_tenant(secret, address)

    async def operator(self, secret: str, address: str = "") -> Operator:
        return await self._inner.operator(secret, address)

    def _counted(self, principal: Principal) -> Principal:
        bucket = self._buckets.of(principal.organization)
        if not bucket.has_one(self._now()):
            message = f"Organization {principal.organization} sends too many requests. Please try again shortly."
            raise RateLimited(message, retry_after_s=1.0)
        bucket.change(-1)
        return principal
