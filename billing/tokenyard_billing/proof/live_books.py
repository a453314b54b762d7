"""Compares what stands in Redis with itself and with SQL, in buckets that are busy too."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec
from redis.asyncio import Redis

from tokenyard.core.budgets import BudgetKey, LiveBudget
from tokenyard.core.redis_keys import BUCKETS
from tokenyard.storage.database import Database
from tokenyard.storage.redis import RedisRun
from tokenyard_billing.charging.streams import UsageStreams
from tokenyard_billing.ports import LiveBudgetReader
from tokenyard_billing.proof.checks.comparison import EXAMPLES, noted
from tokenyard_billing.proof.checks.live_budgets import LiveBudgetCheck
from tokenyard_billing.proof.checks.live_holds import LiveHoldCheck
from tokenyard_billing.proof.checks.pending_charges import PendingChargeCheck, Suspects
from tokenyard_billing.proof.views import Difference

MAX_FOUND = 1_000
MAX_SUSPECTS = 10_000


class LiveLook(msgspec.Struct):
    """What one look at Redis did not find in order, up to a bound of each kind."""

    budgets: dict[tuple[BudgetKey, str], Difference] = msgspec.field(default_factory=dict)
    holds: dict[tuple[int, str, str], Difference] = msgspec.field(default_factory=dict)
    suspects: Suspects = msgspec.field(default_factory=dict)
    passed_over: int = 0  # suspects beyond the bound


class LiveBooks:
    """Looks twice with a pause, and tells only what is wrong at the same place in the same way both times.

    What that can miss: a fault that comes and goes within the pause; suspects beyond the bounds, which are counted;
    what stands in Redis of a budget that it does not know.
    """

    def __init__(
        self,
        database: Database,
        redis: Redis,
        reader: LiveBudgetReader,
        run: RedisRun,
        *,
        pause_s: float,
        hold_grace_s: float,
    ) -> None:
        """`pause_s` lies between the looks; `hold_grace_s` is how late the sweeper may be."""
        self._reader = reader
        self._pause_s = pause_s
        self._budgets = LiveBudgetCheck(database, reader, run)
        self._holds = LiveHoldCheck(reader, run, grace_s=hold_grace_s)
        self._pending = PendingChargeCheck(database, UsageStreams(redis, "reconcile"), reader, run)

    async def differences(self) -> list[Difference]:
        first = await self._look()
        if not (first.budgets or first.holds or first.suspects):
            return []
        await asyncio.sleep(self._pause_s)
        again = await self._look_again(first)
        found = [difference for place, difference in again.budgets.items() if place in first.budgets]
        found += [difference for place, difference in again.holds.items() if place in first.holds]
        found += await self._pending.confirm(first.suspects)
        if first.passed_over:
            found.append(noted("pending_not_read", "all", f"{first.passed_over} more charges were not looked at"))
        return _examples(found)

    async def _look(self) -> LiveLook:
        look = LiveLook()
        holding: dict[int, set[str]] = {}
        async for part in self._reader.every_budget():
            await self._judge(look, part)
            for one, amount in (await self._pending.look(part)).items():
                if len(look.suspects) < MAX_SUSPECTS:
                    look.suspects[one] = amount
                else:
                    look.passed_over += 1
            for budget in part:
                names = holding.setdefault(budget.key.bucket, set())
                if budget.held and len(names) < MAX_FOUND:
                    names.add(budget.key.name)
        for bucket in range(BUCKETS):
            await self._judge_holds(look, bucket, holding.get(bucket, ()))
        return look

    async def _look_again(self, first: LiveLook) -> LiveLook:
        look = LiveLook()
        async for part in self._reader.budgets({key for key, _ in first.budgets}):
            await self._judge(look, part)
        for bucket in {bucket for bucket, _, _ in first.holds}:
            subjects = [subject for of, name, subject in first.holds if (of, name) == (bucket, "held_not_holds")]
            await self._judge_holds(look, bucket, subjects)
        return look

    async def _judge(self, look: LiveLook, part: Sequence[LiveBudget]) -> None:
        for key, difference in await self._budgets.look(part):
            if len(look.budgets) < MAX_FOUND:
                look.budgets[key, difference.name] = difference

    async def _judge_holds(self, look: LiveLook, bucket: int, budgets: Collection[str]) -> None:
        for difference in await self._holds.look(bucket, budgets):
            if len(look.holds) < MAX_FOUND:
                look.holds[bucket, difference.name, difference.subject] = difference


def _examples(found: Iterable[Difference]) -> list[Difference]:
    """Return the first of each name."""
    seen: Counter[str] = Counter()
    kept = []
    for difference in found:
        seen[difference.name] += 1
        if seen[difference.name] <= EXAMPLES:
            kept.append(difference)
    return kept
