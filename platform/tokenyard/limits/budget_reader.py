"""Shows budgets and holds as they stand in Redis, a bounded part at a time; changes nothing."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from tokenyard.core.budgets import BucketHolds, BudgetKey, LiveBudget, LiveHold
from tokenyard.core.redis_keys import BUDGETS, bucket_tag, budget_in
from tokenyard.limits.budget_figures import NO_LEDGER, BudgetFigures, pending_charge
from tokenyard.limits.holds import StoredHold
from tokenyard.limits.scripts import Argument, ScriptName, Scripts

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
            found = await self._of_bucket(bucket, names)
            part += found
            charges += sum(len(budget.charges or ()) for budget in found)
            if len(part) >= PAGE or charges >= MAX_CHARGES:
                yield part
                part, charges = [], 0
        if part:
            yield part

    async def holds(self, bucket: int, budgets: Iterable[str] = ()) -> BucketHolds:
        """Return the bucket's holds, and what is held of every budget that they name, and of `budgets`."""
        now_ms, holds, found = await self._scripts.run(ScriptName.HOLDS, bucket_tag(bucket), [MAX_HOLDS, *budgets])
        return BucketHolds(
            now_ms,
            None
            if holds is None
            else [
                _hold(request.decode(), int(float(lease_end)), value)
                for request, lease_end, value in _grouped(holds, 3)
            ],
            {name.decode(): BudgetFigures.unpacked(value).held for name, value in _grouped(found, 2)},
        )

    async def _of_bucket(self, bucket: int, names: Sequence[str]) -> list[LiveBudget]:
        arguments: list[Argument] = [MAX_CHARGES, *names]
        values, count, flat = await self._scripts.run(ScriptName.BUDGETS, bucket_tag(bucket), arguments)
        charges = _by_budget(flat) if len(flat) == 2 * count else None
        return [
            _budget(BudgetKey(bucket, name), BudgetFigures.unpacked(value), charges)
            for name, value in zip(names, values, strict=True)
        ]


def _by_budget(flat: Sequence[bytes]) -> dict[str, dict[str, int]]:
    """Return the pending charges of each budget, of charge keys and what is pending of them."""
    found: dict[str, dict[str, int]] = {}
    for charge_key, record in _grouped(flat, 2):
        amount, names = pending_charge(record)
        for name in names:
            found.setdefault(name, {})[charge_key.decode()] = amount
    return found


def _budget(key: BudgetKey, figures: BudgetFigures, charges: Mapping[str, Mapping[str, int]] | None) -> LiveBudget:
    return LiveBudget(
        key,
        ledger=None if figures.version == NO_LEDGER else figures.ledger,
        version=figures.version,
        pending=figures.pending,
        held=figures.held,
        charges=None if charges is None else charges.get(key.name, {}),
    )


def _hold(request: str, lease_end_ms: int, value: bytes | None) -> LiveHold:
    """Return a lease as a hold; one whose hold Redis does not have is of nothing."""
    if value is None:
        return LiveHold(request, lease_end_ms, 0, [])
    found = StoredHold.read(value)
    return LiveHold(request, lease_end_ms, found.amount, found.budgets)


def _grouped(flat: Sequence[Any], size: int) -> Iterable[tuple[Any, ...]]:
    return zip(*[iter(flat)] * size, strict=True)
