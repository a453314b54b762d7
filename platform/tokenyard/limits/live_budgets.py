"""Budgets in Redis brought up to SQL: what billing pushes, and what admission finds missing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from tokenyard.core.budgets import Budget, BudgetState, BudgetUpdate
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, bucket_tag, first_shape, ready
from tokenyard.limits.budget_figures import packed
from tokenyard.limits.refusals import MISSING, not_available
from tokenyard.limits.scripts import Argument, ScriptName, Scripts
from tokenyard.storage.redis import redis_time_ms

KEYS_PER_CALL = 2_000  # bounds how long one script call can hold Redis up
LOAD_TIMEOUT_S = 5.0

BudgetSource = Callable[[OrganizationId, str], Awaitable[BudgetState]]
"""Returns a budget as SQL has it, by its organization and name."""


class RedisBudgets:
    """Writes to the budgets of every bucket. Every call may be repeated, and calls may come in any order."""

    def __init__(self, redis: Redis, scripts: Scripts | None = None) -> None:
        self._redis = redis
        self._scripts = scripts or Scripts(redis)

    async def apply(self, updates: Iterable[tuple[OrganizationId, Iterable[BudgetUpdate]]]) -> None:
        """Apply updates: one script call for each bucket, or more where it is a great many keys.

        Raises:
            redis.RedisError: not applied, or not known to be: apply again.
        """
        by_bucket: dict[int, list[BudgetUpdate]] = {}
        for organization, of_organization in updates:
            by_bucket.setdefault(bucket_of(organization), []).extend(of_organization)
        for bucket, of_bucket in by_bucket.items():
            arguments: list[Argument] = []
            for update in _cut(of_bucket):
                if len(arguments) > KEYS_PER_CALL:
                    await self._scripts.run(ScriptName.LEDGER, bucket_tag(bucket), arguments)
                    arguments = []
                arguments += ledger_arguments(update)
            if arguments:
                await self._scripts.run(ScriptName.LEDGER, bucket_tag(bucket), arguments)

    async def decide(self, used: Iterable[tuple[OrganizationId, Mapping[str, int]]]) -> None:
        """Let token windows count what requests really used that were settled or expired without anyone knowing.

        `used`: tokens by request. Raises `redis.RedisError` where it is not done, or not known to be.
        """
        for organization, tokens in used:
            items = list(tokens.items())
            for start in range(0, len(items), KEYS_PER_CALL):
                flat: list[Argument] = [part for item in items[start : start + KEYS_PER_CALL] for part in item]
                await self._scripts.run(ScriptName.DECIDE, bucket_tag(bucket_of(organization)), flat)

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
        """Let admission use the bucket's budgets; not yet where gateways of the first shape used them until now.

        Those are told to refuse what is new, and the bucket waits until nothing is held there any more: call again.
        """
        old_ready, old_holds = first_shape(bucket)
        if await self._redis.delete(old_ready):
            return
        if not await self._redis.zcount(old_holds, await redis_time_ms(self._redis), "+inf"):
            await self._redis.set(ready(bucket), "1")


class MissingBudgets:
    """Loads each budget that Redis does not have once, however many requests wait for it."""

    def __init__(self, budgets: RedisBudgets, source: BudgetSource) -> None:
        self._budgets = budgets
        self._source = source
        self._loading: dict[tuple[OrganizationId, str], asyncio.Task[None]] = {}

    async def answer(
        self, organization: OrganizationId, budgets: Sequence[Budget], ask: Callable[[], Awaitable[list[Any]]]
    ) -> list[Any]:
        """Return the reply of the admit script that `ask` runs; where any of `budgets` is missing, load it first.

        Raises:
            Unavailable: SQL did not answer in time.
            RedisError: Redis did not answer.
        """
        reply = await ask()
        if reply[0] != MISSING:
            return reply
        for place in reply[1:]:
            await asyncio.shield(self._once(organization, budgets[place].name))
        return await ask()

    def _once(self, organization: OrganizationId, name: str) -> "asyncio.Task[None]":
        key = organization, name
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(*key))
            self._loading[key] = task
            task.add_done_callback(lambda _done: self._loading.pop(key, None))
        return task

    async def _load(self, organization: OrganizationId, name: str) -> None:
        # Known first, then read: what is committed after the look into SQL is not passed over as unknown.
        await self._budgets.apply([(organization, [BudgetUpdate(name, None, create=True)])])
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                state = await self._source(organization, name)
        except TimeoutError:
            raise not_available() from None
        await self._budgets.apply([(organization, [BudgetUpdate(name, state, create=True)])])


def ledger_arguments(update: BudgetUpdate) -> list[Argument]:
    """Return what `ledger.lua` takes for one budget."""
    ledger, version = (b"", 0) if update.state is None else (packed((update.state.ledger,)), update.state.version)
    return [update.name, int(update.create), ledger, version, len(update.charge_keys), *update.charge_keys]


def _cut(updates: Iterable[BudgetUpdate]) -> Iterator[BudgetUpdate]:
    for update in updates:
        keys = list(update.charge_keys)
        for start in range(0, max(1, len(keys)), KEYS_PER_CALL):
            yield msgspec.structs.replace(update, charge_keys=keys[start : start + KEYS_PER_CALL])
