"""Holds in Redis: budgets hold what their holds say, and no hold outlives its lease (I4)."""

import math
from collections.abc import Collection

from tokenyard.storage.redis import RedisRun
from tokenyard_billing.ports import LiveBudgetReader
from tokenyard_billing.proof.checks.comparison import broken, noted
from tokenyard_billing.proof.views import Difference


class LiveHoldCheck:
    """Right for busy buckets too: holds and budgets of a bucket are read in one moment."""

    def __init__(self, reader: LiveBudgetReader, run: RedisRun, *, grace_s: float) -> None:
        """`grace_s`: so long after its lease ended, or Redis came back, a hold may wait for the sweeper."""
        self._reader = reader
        self._grace_ms = grace_s * 1000 if run.uptime_s >= grace_s else math.inf

    async def look(self, bucket: int, budgets: Collection[str]) -> list[Difference]:
        """Return what is wrong in `bucket`; `budgets` are looked at even where no hold names them."""
        found = await self._reader.holds(bucket, budgets)
        if found.holds is None:
            return [noted("holds_not_read", f"bucket {bucket}", "too many holds to look at each")]
        sums = dict.fromkeys(found.held, 0)
        for hold in found.holds:
            for name in hold.budgets:
                sums[name] += hold.amount
        outlived = [hold for hold in found.holds if hold.lease_end_ms < found.now_ms - self._grace_ms]
        differing = [
            broken("held_not_holds", name, f"held {held}, its holds {sums[name]}")
            for name, held in found.held.items()
            if held != sums[name]
        ]
        return differing + [
            broken("hold_outlived_lease", one.request, f"its lease ended {found.now_ms - one.lease_end_ms} ms ago")
            for one in outlived
        ]
