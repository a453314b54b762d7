"""Live budgets in Redis, as billing touches them: newer ledger values in, settled pending amounts out."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from tokenyard.core.admission import BudgetState
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, budget, pending, ready

_SCRIPT = (Path(__file__).parent / "apply.lua").read_text()
KEYS_PER_CALL = 2_000  # bounds how long one script call can hold Redis up


class BudgetUpdate(msgspec.Struct, frozen=True):
    """What changes on one budget. `state` None leaves its ledger value; `create` makes it where Redis has none such."""

    name: str
    state: BudgetState | None
    charge_keys: Collection[str] = ()
    create: bool = False


class LiveBudgets:
    """Writes to the budgets of every bucket. Every call may be repeated, and calls may come in any order."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)

    async def apply(self, updates: Iterable[tuple[OrganizationId, Iterable[BudgetUpdate]]]) -> None:
        """Apply updates: one script call for each bucket, or more where it is a great many keys.

        Raises:
            redis.RedisError: not applied, or not known to be: apply again.
        """
        by_bucket: dict[int, list[BudgetUpdate]] = {}
        for organization, of_organization in updates:
            by_bucket.setdefault(bucket_of(organization), []).extend(of_organization)
        for bucket, of_bucket in by_bucket.items():
            await self._apply(bucket, of_bucket)

    async def _apply(self, bucket: int, updates: Sequence[BudgetUpdate]) -> None:
        keys: list[str] = []
        arguments: list[str | int] = []
        for update in _cut(updates):
            if len(arguments) > KEYS_PER_CALL:
                await self._script(keys, arguments)
                keys, arguments = [], []
            keys += (budget(bucket, update.name), pending(bucket, update.name))
            arguments += _arguments(update)
        if keys:
            await self._script(keys, arguments)

    async def is_ready(self, bucket: int) -> bool:
        """Tell whether the bucket's budgets are loaded."""
        return bool(await self._redis.exists(ready(bucket)))

    async def ready_buckets(self, buckets: Sequence[int]) -> list[int]:
        """Return those of `buckets` whose budgets are loaded."""
        pipeline = self._redis.pipeline(transaction=False)
        for bucket in buckets:
            pipeline.exists(ready(bucket))
        return [bucket for bucket, found in zip(buckets, await pipeline.execute(), strict=True) if found]

    async def set_ready(self, bucket: int) -> None:
        """Let admission use the bucket's budgets."""
        await self._redis.set(ready(bucket), "1")


def _cut(updates: Sequence[BudgetUpdate]) -> list[BudgetUpdate]:
    pieces = []
    for update in updates:
        keys = list(update.charge_keys)
        for start in range(0, max(1, len(keys)), KEYS_PER_CALL):
            pieces.append(msgspec.structs.replace(update, charge_keys=keys[start : start + KEYS_PER_CALL]))
    return pieces


def _arguments(update: BudgetUpdate) -> list[str | int]:
    version = update.state.version if update.state else 0
    ledger: str | int = update.state.ledger if update.state else ""
    return [int(update.create), version, ledger, len(update.charge_keys), *update.charge_keys]
