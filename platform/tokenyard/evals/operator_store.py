"""Runs of all organizations: for the workers that ask, grade, and delete what is over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tokenyard.core.clock import Clock
from tokenyard.core.ids import EvalRunId
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.runs.run import (
    UNFINISHED,
    EvalRun,
    EvalRunState,
    Item,
    ItemState,
    RunError,
    RunTally,
    item_id,
    item_of,
    run_of,
)
from tokenyard.evals.store import check_room
from tokenyard.evals.tables import EvalItemRow, EvalRunRow
from tokenyard.storage.bulk import insert
from tokenyard.storage.database import Database, organization_lock

LEASE_MS = 15_000
RUN_LIMIT_MS = 6 * 3_600_000
"""From when a worker first has a run. An idempotency key is kept for longer, so nothing is asked twice."""


class RunTaken(Exception):
    """The run has ended, was cancelled or deleted, or is another worker's now."""


class EvalOperatorStore:
    """Leases runs to workers. All that a worker writes is fenced by its lease: `RunTaken` where that is over."""

    def __init__(
        self, database: Database, clock: Clock, cipher: EvalCipher, *, quota_bytes: int, retention_ms: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._quota_bytes = quota_bytes
        self._retention_ms = retention_ms

    async def claim(self, owner: str, *, for_ms: int = LEASE_MS) -> EvalRun | None:
        """Lease a run for `for_ms` from the call on.

        It is one of the organization with the fewest at work, and of those the one that is due for the longest time.
        """
        now = self._clock.now_ms()
        other = aliased(EvalRunRow)
        at_work = (
            select(func.count())
            .where(other.organization == EvalRunRow.organization, other.state == EvalRunState.IN_PROGRESS)
            .where(other.lease_until_ms > now)
            .scalar_subquery()
        )
        due = (
            select(EvalRunRow.id)
            .where(EvalRunRow.state.in_(UNFINISHED), EvalRunRow.lease_until_ms <= now)
            .order_by(at_work, EvalRunRow.lease_until_ms)
            .limit(1)
        )
        statement = (
            update(EvalRunRow)
            .where(
                EvalRunRow.id == due.scalar_subquery(),
                EvalRunRow.state.in_(UNFINISHED),
                EvalRunRow.lease_until_ms <= now,
            )
            .values(
                state=EvalRunState.IN_PROGRESS,
                lease_owner=owner,
                lease_until_ms=now + for_ms,
                deadline_ms=func.coalesce(EvalRunRow.deadline_ms, now + RUN_LIMIT_MS),
            )
            .returning(EvalRunRow)
        )
        async with self._database.reading() as session:  # an idle worker does not take the write lock
            if await session.scalar(due) is None:
                return None
        async with self._database.transaction() as session:
            row = await session.scalar(statement)
        return None if row is None else await asyncio.to_thread(run_of, row, self._cipher)

    async def lease(self, owner: str, run: EvalRunId, *, for_ms: int) -> bool:
        """Let a lease that is still ours last `for_ms` from now, when the run is due again; tell whether it is ours."""
        async with self._database.transaction() as session:
            until = self._clock.now_ms() + for_ms
            return await _written(session, owner, run, lease_until_ms=until)

    async def take_in(self, owner: str, run: EvalRun, rows: AsyncIterator[Sequence[Item]]) -> None:
        """Write the rows of a run, all of them at once; `QuotaExceeded` where its organization has no room for them."""
        written = list[dict[str, Any]]()
        async for some in rows:
            written += await asyncio.to_thread(self._rows, run, len(written), some)
        size = sum(row["size"] for row in written)
        async with self._database.transaction() as session:
            await organization_lock(session, run.organization)
            await check_room(session, run.organization, size, quota_bytes=self._quota_bytes)
            await _fence(session, owner, run.id, total=len(written))
            await insert(session, EvalItemRow, written)

    async def pending(self, run: EvalRunId) -> list[int]:
        """Return the numbers of the rows that nothing has come of yet."""
        statement = select(EvalItemRow.number).where(EvalItemRow.run == run, EvalItemRow.state == ItemState.PENDING)
        async with self._database.reading() as session:
            return list(await session.scalars(statement.order_by(EvalItemRow.number)))

    async def item(self, run: EvalRunId, number: int) -> Item:
        """Return a row; one that is gone raises `RunTaken`."""
        async with self._database.reading() as session:
            row = await session.get(EvalItemRow, item_id(run, number))
        if row is None:
            raise RunTaken(run)
        return (await asyncio.to_thread(item_of, row, self._cipher)).content

    async def finish_item(
        self, owner: str, run: EvalRunId, number: int, item: Item, *, state: ItemState, tally: RunTally
    ) -> None:
        """Write what came of a row, and with it what that makes of its run."""
        name = item_id(run, number)
        content = await asyncio.to_thread(self._cipher.encrypt, name, item)
        statement = (
            update(EvalItemRow)
            .where(EvalItemRow.id == name)
            .values(state=state, created_at_ms=self._clock.now_ms(), content=content, size=len(content))
        )
        async with self._database.transaction() as session:
            await _fence(session, owner, run, tally=msgspec.to_builtins(tally))
            await session.execute(statement)

    async def end(self, owner: str, run: EvalRunId, state: EvalRunState, error: RunError | None = None) -> None:
        async with self._database.transaction() as session:
            said = None if error is None else msgspec.to_builtins(error)
            await _fence(session, owner, run, state=state, error=said, lease_owner=None)

    async def expire(self) -> None:
        """Hide the runs whose time is over."""
        over = (
            EvalRunRow.created_at_ms <= self._clock.now_ms() - self._retention_ms,
            EvalRunRow.state != EvalRunState.DELETED,
        )
        async with self._database.reading() as session:
            if await session.scalar(select(EvalRunRow.id).where(*over).limit(1)) is None:
                return
        async with self._database.transaction() as session:
            await session.execute(update(EvalRunRow).where(*over).values(state=EvalRunState.DELETED, lease_owner=None))

    async def delete_hidden(self, *, limit: int) -> int:
        """Delete up to `limit` items of hidden runs, and those runs that have none; return how many items."""
        hidden = select(EvalRunRow.id).where(EvalRunRow.state == EvalRunState.DELETED)
        some = select(EvalItemRow.id).where(EvalItemRow.run.in_(hidden)).limit(limit)
        of_run = select(EvalItemRow.id).where(EvalItemRow.run == EvalRunRow.id)
        async with self._database.reading() as session:
            if await session.scalar(hidden.limit(1)) is None:
                return 0
        async with self._database.transaction() as session:
            gone = await session.scalars(delete(EvalItemRow).where(EvalItemRow.id.in_(some)).returning(EvalItemRow.id))
            count = len(gone.all())
            await session.execute(delete(EvalRunRow).where(EvalRunRow.state == EvalRunState.DELETED, ~of_run.exists()))
        return count

    def _rows(self, run: EvalRun, first: int, rows: Sequence[Item]) -> list[dict[str, Any]]:
        names = [item_id(run.id, first + place) for place in range(len(rows))]
        contents = [self._cipher.encrypt(name, row) for name, row in zip(names, rows, strict=True)]
        return [
            {
                "id": name,
                "organization": run.organization,
                "run": run.id,
                "number": number,
                "state": ItemState.PENDING,
                "created_at_ms": self._clock.now_ms(),
                "size": len(content),
                "content": content,
            }
            for number, (name, content) in enumerate(zip(names, contents, strict=True), first)
        ]


async def _fence(session: AsyncSession, owner: str, run: EvalRunId, **values: object) -> None:
    if not await _written(session, owner, run, **values):
        raise RunTaken(run)


async def _written(session: AsyncSession, owner: str, run: EvalRunId, **values: object) -> bool:
    statement = (
        update(EvalRunRow)
        .where(EvalRunRow.id == run, EvalRunRow.lease_owner == owner, EvalRunRow.state == EvalRunState.IN_PROGRESS)
        .values(**values)
        .returning(EvalRunRow.id)
    )
    return await session.scalar(statement) is not None
