"""Holds on budgets alone, for the moments until the ledger has a fine-tuning job's reservation."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.budgets import Budget
from tokenyard.core.errors import Conflict
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.holds import Hold, checked_amount, hold_arguments
from tokenyard.limits.live_budgets import BudgetSource, MissingBudgets, RedisBudgets
from tokenyard.limits.refusals import OK, SETTLED, budget_refusal, not_available
from tokenyard.limits.scripts import ScriptName, Scripts

LEASE_MS = 120_000


class ReservationHolds:
    """Holds that nobody renews: they end by `release`, or by their lease where their process died."""

    def __init__(self, redis: Redis, source: BudgetSource) -> None:
        self._scripts = Scripts(redis)
        self._missing = MissingBudgets(RedisBudgets(redis, self._scripts), source)

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[Budget], amount: NanoDollars
    ) -> None:
        """Hold `amount` on every budget, or on none. The same charge key again only begins the lease anew.

        Raises:
            QuotaExceeded: a budget does not cover it.
            Unavailable: Redis is down or not loaded yet.
        """
        names = " ".join(budget.name for budget in budgets)
        taken = Hold(organization, charge_key, 0, checked_amount(amount), 0, None, names, "")
        arguments = hold_arguments(taken, budgets, lease_ms=LEASE_MS)
        try:
            reply = await self._missing.answer(
                organization, budgets, lambda: self._scripts.run(ScriptName.ADMIT, _tag(organization), arguments)
            )
        except RedisError as error:
            raise not_available() from error
        if reply[0] == SETTLED:
            raise Conflict(f"{charge_key} has already ended.")
        if reply[0] != OK:
            raise budget_refusal(reply, amount, budgets, organization)

    async def release(self, organization: OrganizationId, charge_key: str) -> None:
        """Give the hold back, if there is one; raises `redis.RedisError` where it is not done, or not known to be."""
        await self._scripts.run(ScriptName.RELEASE, _tag(organization), [charge_key])


def _tag(organization: OrganizationId) -> str:
    return bucket_tag(bucket_of(organization))
