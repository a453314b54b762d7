"""Holds on budgets alone, for work that takes hours: a fine-tuning job's reservation."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.errors import Conflict
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.budget_loader import BudgetLoader
from tokenyard.limits.holds import checked_amount
from tokenyard.limits.ports import BudgetSource
from tokenyard.limits.refusals import not_available, quota_exceeded
from tokenyard.limits.scripts import Argument, ScriptName, Scripts


class BudgetHolds:
    """Holds without a lease: they end only by `release`, so whoever takes one keeps its own record of it."""

    def __init__(self, redis: Redis, source: BudgetSource) -> None:
        self._scripts = Scripts(redis)
        self._loader = BudgetLoader(self._scripts, source)

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[str], amount: NanoDollars
    ) -> None:
        """Hold `amount` on every budget, or on none. The same charge key again changes nothing.

        Raises:
            QuotaExceeded: a budget does not cover it.
            Unavailable: Redis is down or not loaded yet.
        """
        arguments: list[Argument] = [
            "",
            charge_key,
            "",
            "",
            "",
            checked_amount(amount),
            0,
            "",
            " ".join(budgets),
            "",
            "",
        ]
        try:
            reply = await self._scripts.run(ScriptName.ADMIT, _tag(organization), arguments)
            if reply[0] == b"missing":
                unknown = await self._loader.load(organization, [name.decode() for name in reply[1:]])
                if unknown is not None:
                    raise quota_exceeded(unknown, amount, 0, organization)
                reply = await self._scripts.run(ScriptName.ADMIT, _tag(organization), arguments)
        except RedisError as error:
            raise not_available() from error
        match reply:
            case [b"ok", *_]:
                return
            case [b"budget", name, ledger, pending, held]:
                available = int(ledger) - int(pending) - int(held)
                raise quota_exceeded(name.decode(), amount, available, organization)
            case [b"settled"]:
                raise Conflict(f"{charge_key} has already ended.")
        raise not_available()

    async def release(self, organization: OrganizationId, charge_key: str) -> None:
        """Give the hold back, if there is one.

        Raises:
            Unavailable: Redis is down.
        """
        try:
            await self._scripts.run(ScriptName.RELEASE, _tag(organization), ["", charge_key])
        except RedisError as error:
            raise not_available() from error


def _tag(organization: OrganizationId) -> str:
    return bucket_tag(bucket_of(organization))
