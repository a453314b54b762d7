"""Pending charges: each of them waits for something that is really on its way to the ledger (I6)."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard.core.budgets import BudgetKey, LiveBudget
from tokenyard.core.ids import request_of
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import StandaloneUse, decode_event
from tokenyard.storage.database import Database
from tokenyard.storage.redis import RedisRun
from tokenyard_billing.charging.streams import UsageStreams
from tokenyard_billing.ports import LiveBudgetReader
from tokenyard_billing.proof.checks.comparison import EXAMPLES, broken
from tokenyard_billing.proof.checks.messages import changes_on_their_way
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Charge, DeadLetter, OpenRequest

PAGE = 1_000


class PendingCharge(NamedTuple):
    """A charge key that is pending on a budget."""

    budget: BudgetKey
    charge_key: str


Suspects = dict[PendingCharge, int]
"""Amounts of pending charges that nothing explains yet."""


class PendingChargeCheck:
    """`look` collects suspects at little cost; `confirm`, a little later, finds out about those that still stand.

    The order of the looks in `confirm` is what makes it right: an event leaves its stream after its commit; what a
    commit decided leaves the outbox after Redis has it. So what is in neither, and is still pending then, is left.
    """

    def __init__(self, database: Database, streams: UsageStreams, reader: LiveBudgetReader, run: RedisRun) -> None:
        self._database = database
        self._streams = streams
        self._reader = reader
        self._run = run

    async def look(self, part: Sequence[LiveBudget]) -> Suspects:
        """Return the pending charges of budgets, just read from Redis, that are of no open request."""
        pending = {
            PendingCharge(budget.key, charge_key): amount
            for budget in part
            for charge_key, amount in (budget.charges or {}).items()
        }
        waiting = await self._open({one.charge_key for one in pending})
        return {one: amount for one, amount in pending.items() if one.charge_key not in waiting}

    async def confirm(self, suspects: Suspects) -> list[Difference]:
        """Return those of `suspects` that nothing will ever take away."""
        left = await self._still_pending(suspects)
        left = await self._without_event(left)
        waiting = await self._open({one.charge_key for one in left})
        left = {one: amount for one, amount in left.items() if one.charge_key not in waiting}
        await self._drop_on_their_way(left)
        left = await self._still_pending(left)
        examples = sorted(left.items())[:EXAMPLES]
        charged = await self._charged({one.charge_key for one, _ in examples})
        return [
            broken(
                "pending_phantom",
                f"{one.budget.name}/{one.charge_key}",
                f"{amount} nano-dollars; {'charged in SQL' if one.charge_key in charged else 'unknown to SQL'}",
            )
            for one, amount in examples
        ]

    async def _still_pending(self, suspects: Suspects) -> Suspects:
        """Return those of `suspects` whose amount stands as it did."""
        still: Suspects = {}
        async for part in self._reader.budgets({one.budget for one in suspects}):
            for budget in part:
                for charge_key, amount in (budget.charges or {}).items():
                    one = PendingCharge(budget.key, charge_key)
                    if suspects.get(one) == amount:
                        still[one] = amount
        return still

    async def _without_event(self, suspects: Suspects) -> Suspects:
        """Return those of `suspects` of which no event stands in the stream or among the dead letters."""
        charge_keys: dict[int, set[str]] = {}
        for one in suspects:
            charge_keys.setdefault(one.budget.bucket, set()).add(one.charge_key)
        for bucket, waiting in charge_keys.items():
            async for events in self._events(bucket):
                for event in events:
                    _strike(waiting, event)
                if not waiting:
                    break
        return {one: amount for one, amount in suspects.items() if one.charge_key in charge_keys[one.budget.bucket]}

    async def _events(self, bucket: int) -> AsyncIterator[list[bytes]]:
        async for events in self._streams.standing(bucket, PAGE):
            yield events
        last = ""
        while True:
            of_stream = DeadLetter.stream == usage_stream(bucket), DeadLetter.entry > last
            query = select(DeadLetter.entry, DeadLetter.event).where(*of_stream).order_by(DeadLetter.entry)
            async with self._database.reading() as session:
                rows = (await session.execute(query.limit(PAGE))).all()
            yield [event.encode() for _, event in rows]
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    async def _drop_on_their_way(self, suspects: Suspects) -> None:
        if not suspects:
            return
        async for change in changes_on_their_way(self._database, self._run.id):
            bucket = bucket_of(change.organization)
            for name, charge_keys in change.updates().items():
                for charge_key in charge_keys:
                    suspects.pop(PendingCharge(BudgetKey(bucket, name), charge_key), None)

    async def _open(self, charge_keys: Iterable[str]) -> set[str]:
        return await self._known(OpenRequest.request, charge_keys)

    async def _charged(self, charge_keys: Iterable[str]) -> set[str]:
        return await self._known(Charge.charge_key, charge_keys)

    async def _known(self, column: InstrumentedAttribute[str], values: Iterable[str]) -> set[str]:
        wanted, found = list(values), set[str]()
        for start in range(0, len(wanted), PAGE):
            async with self._database.reading() as session:
                found.update(await session.scalars(select(column).where(column.in_(wanted[start : start + PAGE]))))
        return found


def _strike(waiting: set[str], event: bytes) -> None:
    """Take the charge key that the event is about out of `waiting`; of one that cannot be read, all that it names."""
    try:
        read = decode_event(event)
    except msgspec.MsgspecError:
        waiting.difference_update([key for key in waiting if key.encode() in event])
    else:
        waiting.discard(read.charge_key if isinstance(read, StandaloneUse) else request_of(read.claims.attempt))
