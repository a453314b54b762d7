"""Holds on budgets alone, for work that takes hours: a fine-tuning job's reservation."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.errors import Conflict
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.holds import checked_amount
from tokenyard.limits.live_budgets import BudgetSource, MissingBudgets, RedisBudgets
from tokenyard.limits.refusals import OK, SETTLED, budget_refusal, not_available
from tokenyard.limits.scripts import Argument, ScriptName, Scripts


class ReservationHolds:
    """Holds without a lease: they end only by `release`, so whoever takes one keeps its own record of it."""

    def __init__(self, redis: Redis, source: BudgetSource) -> None:
        self._scripts = Scripts(redis)
        self._missing = MissingBudgets(RedisBudgets(redis, self._scripts), source)

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[str], amount: NanoDollars
    ) -> None:
        """Hold `amount` on every budget, or on none. The same charge key again changes nothing.

        Raises:
            QuotaExceeded: a budget does not cover it.
            Unavailable: Redis is down or not loaded yet.
        """
        no_key, no_lease, no_tokens, no_claims, no_limits = ("", ""), "", 0, "", ("", "")
        arguments: list[Argument] = [
            *("", charge_key, *no_key, no_lease, checked_amount(amount)),
            *(no_tokens, no_claims, " ".join(budgets), *no_limits),
        ]
        try:
            reply = await self._missing.answer(
                organization, lambda: self._scripts.run(ScriptName.ADMIT, _tag(organization), arguments)
            )
        except RedisError as error:
            raise not_available() from error
        if reply[0] == SETTLED:
            raise Conflict(f"{charge_key} has already ended.")
        if reply[0] != OK:
            raise budget_refusal(reply, amount, organization)

    async def release(self, organization: OrganizationId, charge_key: str) -> None:
        """Give the hold back, if there is one; where Redis is down it raises `Unavailable`."""
        try:
            await self._scripts.run(ScriptName.RELEASE, _tag(organization), ["", charge_key])
        except RedisError as error:
            raise not_available() from error


def _tag(organization: OrganizationId) -> str:
    return bucket_tag(bucket_of(organization))
