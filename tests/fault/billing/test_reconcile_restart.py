"""Redis may be restarted while the books are looked at."""

from collections.abc import Iterable
from pathlib import Path

from redis.asyncio import Redis

from support.billing.stand import FixedJobs
from support.money.live_budgets import put_budget
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.budgets import BucketHolds
from tokenyard.core.clock import SystemClock
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.budget_reader import RedisBudgetReader
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard_billing.proof.reconcile import LedgerReconciler


class InterruptedReader(RedisBudgetReader):
    """Its Redis is killed and started again at the first look at holds."""

    def __init__(self, redis: Redis, valkey: Valkey) -> None:
        super().__init__(redis)
        self._valkey: Valkey | None = valkey

    async def holds(self, bucket: int, budgets: Iterable[str] = ()) -> BucketHolds:
        if self._valkey:
            self._valkey.kill()
            self._valkey.start()
            self._valkey = None
        return await super().holds(bucket, budgets)


async def test_a_restart_in_the_middle_is_said_and_nothing_is_accused(database: Database, tmp_path: Path) -> None:
    valkey = Valkey(tmp_path, free_port())
    valkey.start()
    redis = connect_redis(valkey.url)
    try:
        await put_budget(redis, 1, "wallet:org_a", BudgetFigures(5, 0))
        reader = InterruptedReader(redis, valkey)
        books = LedgerReconciler(database, redis, reader, FixedJobs(), SystemClock(), pause_s=0)
        found = await books.reconcile()
        assert (found.ok, [one.name for one in found.differences]) == (True, ["redis_restarted"])
        again = await books.reconcile()
        assert (again.ok, [one.name for one in again.differences]) == (False, ["live_budget_differs"])
    finally:
        await redis.aclose()
        valkey.stop()
