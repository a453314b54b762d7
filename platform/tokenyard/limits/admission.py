"""Lets a request in, or says why not; and settles it when it ended."""

from pathlib import Path
from types import TracebackType

from redis.asyncio import Redis

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import Settled
from tokenyard.limits.ports import BudgetSource


class Admission:
    """One of these a gateway process, used as `async with Admission(...) as admission`."""

    def __init__(
        self,
        redis: Redis,
        budgets: BudgetSource,
        *,
        spool_folder: Path,
        lease_ms: int,
        renewal_ms: int,
    ) -> None:
        self._redis = redis
        self._budgets = budgets
        self._spool_folder = spool_folder
        self._lease_ms = lease_ms
        self._renewal_ms = renewal_ms

    async def __aenter__(self) -> "Admission":
        """Start to renew this process's holds and to send again what Redis may have lost."""
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop. Holds that are still open expire by their lease."""
        raise NotImplementedError

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Take a slot, its place in every window, and a hold on every budget; or take nothing.

        Admitting the same request again gives the same answer and takes nothing more.

        Raises:
            RateLimited: a rate or concurrency limit is reached; the message and headers say which and when to return.
            QuotaExceeded: a budget does not cover the worst case.
            Unauthenticated: the key was revoked or changed.
            Unavailable: Redis is down or not loaded yet, or this process cannot keep more usage events.
        """
        raise NotImplementedError

    async def settle(self, settled: Settled, cost: NanoDollars) -> None:
        """Release the request's hold, move `cost` to pending, and report its usage, exactly once however often called.

        A request that failed before its first byte is settled too: outcome FAILED, cost 0. Never raises for Redis
        being away: the event then waits in the spool. Shield it from cancellation.
        """
        raise NotImplementedError
