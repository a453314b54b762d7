"""What billing needs from others; `bootstrap` gives it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tokenyard.core.budgets import BudgetUpdate
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars


class SpendingLimits(Protocol):
    """Knows who may spend how much in a month, by the id of organization, project or key (tenancy)."""

    async def monthly(self, organization: OrganizationId) -> Mapping[str, NanoDollars]: ...


class BudgetHolds(Protocol):
    """Holds money of live budgets for a training job, on all or on none (limits); raises QuotaExceeded, Unavailable."""

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[str], amount: NanoDollars
    ) -> None: ...

    async def release(self, organization: OrganizationId, charge_key: str) -> None: ...


class LiveBudgets(Protocol):
    """The budgets in Redis (limits). Every call may be repeated, and calls may come in any order.

    Each raises `redis.RedisError` where it is not done, or not known to be.
    """

    async def apply(self, updates: Iterable[tuple[OrganizationId, Iterable[BudgetUpdate]]]) -> None: ...

    async def is_ready(self, bucket: int) -> bool: ...

    async def ready_buckets(self, buckets: Sequence[int]) -> list[int]: ...

    async def set_ready(self, bucket: int) -> None: ...


OrganizationLookup = Callable[[str], Awaitable[OrganizationId]]
"""Returns the id of the organization with an id or slug; raises `NotFound` (tenancy)."""
