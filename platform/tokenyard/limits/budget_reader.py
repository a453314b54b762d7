"""Shows budgets and holds as they stand in Redis, a bounded part at a time; changes nothing."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from tokenyard.core.budgets import BucketHolds, BudgetKey, LiveBudget, LiveHold
from tokenyard.core.redis_keys import BUDGETS, bucket_tag, budget_in
from tokenyard.limits.scripts import ScriptName, Scripts

PAGE = 500  # budgets
SCAN_COUNT = 1_000
# These bound memory, and how long one script call holds Redis up.
MAX_CHARGES = 10_000
MAX_HOLDS = 20_000


class RedisBudgetReader:
    """Every call raises `redis.RedisError` where Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = Scripts(redis)

    async def every_budget(self) -> AsyncIterator[Sequence[LiveBudget]]:
        """Yield all budgets in parts; one that comes or goes meanwhile may be left out, or come twice."""
        keys: list[BudgetKey] = []
        async for key in self._redis.scan_iter(match=BUDGETS, count=SCAN_COUNT):
            keys.append(BudgetKey(*budget_in(key.decode() if isinstance(key, bytes) else key)))
            if len(keys) == PAGE:
                async for part in self.budgets(keys):
                    yield part
                keys = []
        async for part in self.budgets(keys):
            yield part

    async def budgets(self, keys: Iterable[BudgetKey]) -> AsyncIterator[Sequence[LiveBudget]]:
        """Yield the budgets of `keys` in parts, each budget with its charges as of one moment."""
        by_bucket: dict[int, list[str]] = {}
        for bucket, name in keys:
            by_bucket.setdefault(bucket, []).append(name)
        part: list[LiveBudget] = []
        charges = 0
        for bucket, names in by_bucket.items():
            async for found in self._of_bucket(bucket, names):
                part += found
                charges += sum(len(budget.charges or ()) for budget in found)
                if len(part) >= PAGE or charges >= MAX_CHARGES:
                    yield part
                    part, charges = [], 0
        if part:
            yield part

    async def holds(self, bucket: int, budgets: Iterable[str] = ()) -> BucketHolds:
        """Return the bucket's holds, and what is held of every budget that they name, and of `budgets`."""
        now_ms, holds, held = await self._scripts.run(ScriptName.HOLDS, bucket_tag(bucket), [MAX_HOLDS, *budgets])
        return BucketHolds(
            now_ms,
            None
            if holds is None
            else [
                LiveHold(request.decode(), int(float(lease_end)), int(amount), names.decode().split())
                for request, lease_end, amount, names in _grouped(holds, 4)
            ],
            {name.decode(): int(amount) for name, amount in _grouped(held, 2)},
        )

    async def _of_bucket(self, bucket: int, names: Sequence[str]) -> AsyncIterator[list[LiveBudget]]:
        """Yield budgets of one bucket; those whose charges did not fit in with the others' come in the next part."""
        while names:
            reply = await self._scripts.run(ScriptName.BUDGETS, bucket_tag(bucket), [MAX_CHARGES, *names])
            read = dict(zip(names, reply, strict=True))
            names = [name for name, (*_, count, flat) in read.items() if len(flat) < 2 * count <= 2 * MAX_CHARGES]
            left = set(names)
            yield [_budget(BudgetKey(bucket, name), state) for name, state in read.items() if name not in left]


def _budget(key: BudgetKey, state: Sequence[Any]) -> LiveBudget:
    ledger, version, pending, held, count, flat = state
    complete = len(flat) == 2 * count
    return LiveBudget(
        key,
        ledger=None if ledger is None else int(ledger),
        version=int(version or 0),
        pending=int(pending or 0),
        held=int(held or 0),
        charges={name.decode(): int(amount) for name, amount in _grouped(flat, 2)} if complete else None,
    )


def _grouped(flat: Sequence[Any], size: int) -> Iterable[tuple[Any, ...]]:
    return zip(*[iter(flat)] * size, strict=True)
