"""Reads and writes live budgets past the scripts."""

import struct

import msgspec
from redis.asyncio import Redis

from support.redis_reader import as_bytes, read_hash
from tokenyard.core import redis_keys
from tokenyard.limits.budget_figures import BudgetFigures, packed, pending_charge


def pack_budget(figures: BudgetFigures) -> bytes:
    """Return what `BudgetFigures.unpacked` reads."""
    return packed((figures.ledger,)) + struct.pack(">d", figures.version) + packed((figures.pending, figures.held))


async def read_budget(redis: Redis, bucket: int, name: str) -> BudgetFigures:
    """Return the figures of a budget; of one that Redis does not have those of nothing."""
    value = await redis.get(redis_keys.budget(bucket, name))
    return BudgetFigures.unpacked(None if value is None else as_bytes(value))


async def put_budget(redis: Redis, bucket: int, name: str, figures: BudgetFigures) -> None:
    await redis.set(redis_keys.budget(bucket, name), pack_budget(figures))


async def change_budget(redis: Redis, bucket: int, name: str, figure: str, by: int) -> None:
    """Add to one figure of a budget and leave everything else as it is."""
    figures = await read_budget(redis, bucket, name)
    before = figures.version if figure == "version" else getattr(figures, figure)
    if figures == BudgetFigures():
        figures, before = BudgetFigures(version=0), 0
    await put_budget(redis, bucket, name, msgspec.structs.replace(figures, **{figure: before + by}))


async def read_pending(redis: Redis, bucket: int, budget: str) -> dict[str, int]:
    """Return the charges that are pending on a budget."""
    return pending_on(budget, await read_hash(redis, redis_keys.pending(bucket)))


def pending_on(budget: str, records: dict[bytes, bytes]) -> dict[str, int]:
    found = {key.decode(): pending_charge(record) for key, record in records.items()}
    return {key: amount for key, (amount, names) in found.items() if budget in names}


def pack_pending(amount: int, *budgets: str) -> bytes:
    """Return what `pending_charge` reads."""
    return packed((amount,)) + " ".join(budgets).encode()


async def add_pending(redis: Redis, bucket: int, budget: str, charge_key: str, amount: int) -> None:
    """Do to one budget what settling does."""
    name = redis_keys.pending(bucket)
    before = await redis.hget(name, charge_key)
    pending_before, names = (amount, []) if before is None else pending_charge(as_bytes(before))
    assert pending_before == amount
    await redis.hset(name, charge_key, pack_pending(amount, *names, budget))
    figures = await read_budget(redis, bucket, budget)
    await put_budget(redis, bucket, budget, msgspec.structs.replace(figures, pending=figures.pending + amount))
