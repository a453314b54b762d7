"""What billing needs from others; `bootstrap` gives it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tokenyard.core.budgets import BudgetUpdate
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars


class SpendingLimits(Protocol):
    """Knows who may spend how much in a month (tenancy)."""

    async def monthly(self, organization: OrganizationId) -> Mapping[str, NanoDollars]:
        """Return the monthly limit of each scope that has one: of the organization, its projects and its keys."""
        ...


class BudgetHolds(Protocol):
    """Holds money of live budgets for a training job (limits)."""

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[str], amount: NanoDollars
    ) -> None:
        """Hold `amount` on every budget or on none; holding again for the same key takes nothing more.

        Raises:
            QuotaExceeded: a budget does not cover it.
            Unavailable: Redis is down or not loaded yet.
        """
        ...

    async def release(self, organization: OrganizationId, charge_key: str) -> None:
        """Release what is held for `charge_key`; releasing what is not held is fine."""
        ...


class LiveBudgets(Protocol):
    """The budgets in Redis (limits). Every call may be repeated, and calls may come in any order.

    Each raises `redis.RedisError` where it is not done, or not known to be.
    """

    async def apply(self, updates: Iterable[tuple[OrganizationId, Iterable[BudgetUpdate]]]) -> None: ...

    async def is_ready(self, bucket: int) -> bool:
        """Tell whether the bucket's budgets are loaded."""
        ...

    async def ready_buckets(self, buckets: Sequence[int]) -> list[int]:
        """Return those of `buckets` whose budgets are loaded."""
        ...

    async def set_ready(self, bucket: int) -> None:
        """Let admission use the bucket's budgets."""
        ...


OrganizationLookup = Callable[[str], Awaitable[OrganizationId]]
"""Returns the id of the organization with an id or slug; raises `NotFound` (tenancy)."""
