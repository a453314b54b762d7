"""What billing needs from others; `bootstrap` gives it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import AlertRules, BucketHolds, Budget, BudgetKey, BudgetUpdate, LiveBudget
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import FeeStep, NanoDollars, PriceStep
from tokenyard.storage.transactional_outbox import OutboxMessage


class SpendingLimits(Protocol):
    """Knows who may spend how much in a month (tenancy)."""

    async def monthly_limits(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId
    ) -> Mapping[str, NanoDollars]:
        """Return the limit of each of the three scopes that has one, by its id."""
        ...


class PlanPrices(Protocol):
    """Knows by what organizations' plans multiply prices (tenancy)."""

    async def price_steps(
        self, session: AsyncSession, organizations: Collection[OrganizationId]
    ) -> Mapping[OrganizationId, Sequence[PriceStep]]:
        """Return for each by what its prices were, are and will be multiplied, in the order of dates."""
        ...


class PlanFees(Protocol):
    """Knows what organizations' plans ask for a month (tenancy)."""

    async def fee_steps(self, session: AsyncSession, organization: OrganizationId) -> Sequence[FeeStep]:
        """Return what they asked, ask, and will ask, in the order of dates."""
        ...

    async def with_fees(self, session: AsyncSession, *, after: str, limit: int) -> Sequence[OrganizationId]:
        """Return at most `limit` organizations behind `after` of which a plan ever asked something."""
        ...


class PlanTerms(PlanPrices, PlanFees, Protocol):
    """Knows all that plans say of money (tenancy)."""


class AlertRulesSource(Protocol):
    """Knows at which use of their budgets organizations are told (tenancy)."""

    async def alert_rules(
        self, scopes: Mapping[OrganizationId, Collection[str]]
    ) -> Mapping[OrganizationId, AlertRules]:
        """Return them with the monthly limits of the organizations, and of their `scopes` (ids)."""
        ...


class BudgetHolds(Protocol):
    """Holds money of live budgets for a training job (limits), for minutes: then the ledger has taken it over."""

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[Budget], amount: NanoDollars
    ) -> None:
        """Hold it on all or on none, or raise RateLimited, QuotaExceeded or Unavailable; again holds no more."""
        ...

    async def release(self, organization: OrganizationId, charge_key: str) -> None:
        """Give it back, if there is one, or raise `redis.RedisError`."""
        ...


class LiveBudgets(Protocol):
    """The budgets in Redis (limits). Every call may be repeated, and calls may come in any order.

    Each raises `redis.RedisError` where it is not done, or not known to be.
    """

    async def apply(self, updates: Iterable[tuple[OrganizationId, Iterable[BudgetUpdate]]]) -> None: ...

    async def decide(self, used: Iterable[tuple[OrganizationId, Mapping[str, int]]]) -> None:
        """Let token windows count what undecided requests really used: tokens by request."""
        ...

    async def is_ready(self, bucket: int) -> bool: ...

    async def ready_buckets(self, buckets: Sequence[int]) -> list[int]: ...

    async def set_ready(self, bucket: int) -> None: ...


class LiveBudgetReader(Protocol):
    """Shows budgets and holds as they stand in Redis (limits), a bounded part at a time; changes nothing.

    Each raises `redis.RedisError` where Redis does not answer.
    """

    def every_budget(self) -> AsyncIterator[Sequence[LiveBudget]]:
        """Yield all budgets; one that comes or goes meanwhile may be left out, or come twice."""
        ...

    def budgets(self, keys: Iterable[BudgetKey]) -> AsyncIterator[Sequence[LiveBudget]]:
        """Yield the budgets of `keys`, each with its charges as of one moment."""
        ...

    async def holds(self, bucket: int, budgets: Iterable[str] = ()) -> BucketHolds:
        """Return the bucket's holds, and what is held of every budget that they name, and of `budgets`."""
        ...


class Blocking(Protocol):
    """Blocks organizations from all that costs money (tenancy)."""

    async def set_reason(
        self, session: AsyncSession, organization: OrganizationId, reason: str, *, actor: ApiKeyId, at_ms: int
    ) -> Sequence[OutboxMessage]:
        """Block for a reason that the organization reads, or let it go on where that is empty.

        Return what is to be carried after the commit.
        """
        ...

    async def is_closed(self, session: AsyncSession, organization: OrganizationId) -> bool:
        """Tell whether it may use nothing now: it is blocked or archived."""
        ...


class UnfinishedJobs(Protocol):
    """Knows which training jobs may still be charged (finetune)."""

    async def unfinished(self, jobs: Collection[JobId], *, since_ms: int) -> Collection[JobId]:
        """Return those of `jobs` that have not ended, or ended at `since_ms` or later."""
        ...


OrganizationLookup = Callable[[str], Awaitable[OrganizationId]]
"""Returns the id of the organization with an id or slug; raises `NotFound` (tenancy)."""
