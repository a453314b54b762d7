"""However many organizations and charges there are: SQL is asked as often, and no more of Redis is held at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import Engine, event

from support.billing.stand import claims, reconciler, reported, send, settled, usage, worker
from tokenyard.core.budgets import BudgetUpdate, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.storage.database import Database
from tokenyard_billing.wallets.budgets import SqlBudgets


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Collect what is sent to any database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def charge(database: Database, redis: Redis, organizations: range, requests: int) -> None:
    """Charge each organization that many requests, and let Redis know its wallet."""
    live, budgets = RedisBudgets(redis), SqlBudgets(database)
    for number in organizations:
        owner = OrganizationId(f"org_{number}")
        whose: dict[str, Any] = {"project": f"proj_{number}", "key": f"key_{number}", "budgets": (wallet(owner),)}
        for request in range(requests):
            made = claims(f"req_{number}_{request}", 1, owner, **whose)
            await send(redis, settled(made, usage(2, 1)), reported(made, usage(2, 1)))
        name = wallet(owner)
        await live.apply([(owner, [BudgetUpdate(name, await budgets.load(owner, name), create=True)])])
    await worker(database, redis).consumer.step()


async def test_statements_do_not_grow_with_organizations_or_charges(database: Database, redis: Redis) -> None:
    await charge(database, redis, range(2), requests=1)
    with counted_statements() as few:
        assert (await reconciler(database, redis).reconcile()).ok
    await charge(database, redis, range(2, 102), requests=3)
    with counted_statements() as many:
        found = await reconciler(database, redis).reconcile()
    assert (found.ok, found.tokens.charged) == (True, 2 * 3 + 100 * 3 * 3)
    assert len(many) == len(few)
