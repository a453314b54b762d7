"""Runs and their items of one organization and project; another's, and those past their time, are not there."""

import asyncio

import msgspec
from sqlalchemy import ColumnElement, func, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound, RateLimited
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.runs.run import (
    UNFINISHED,
    EvalRun,
    EvalRunState,
    ItemState,
    StoredItem,
    item_of,
    run_of,
)
from tokenyard.evals.store import check_room, noted_size
from tokenyard.evals.tables import EvalItemRow, EvalRow, EvalRunRow
from tokenyard.storage.database import Database, organization_lock
from tokenyard.storage.paging import part_of_list

MAX_UNFINISHED = 10


class EvalRunStore:
    """Every method sees one project's runs of one eval; another's raise `NotFound`, as if they did not exist."""

    def __init__(
        self, database: Database, clock: Clock, cipher: EvalCipher, *, quota_bytes: int, retention_ms: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._quota_bytes = quota_bytes
        self._retention_ms = retention_ms

    async def create(self, organization: OrganizationId, run: EvalRun) -> None:
        """Write a run, which is due at once.

        Raises:
            NotFound: its eval was deleted.
            QuotaExceeded: the organization has no room for it.
            RateLimited: too many of its runs have not ended.
        """
        encrypted = await asyncio.to_thread(self._cipher.encrypt, run.id, run.content)
        size = len(encrypted) + noted_size(run.name, run.metadata)
        row = EvalRunRow(
            id=run.id,
            eval=run.eval,
            organization=organization,
            project=run.project,
            key=run.key,
            name=run.name,
            details=dict(run.metadata),
            model=run.model,
            state=run.state,
            created_at_ms=run.created_at_ms,
            tally=msgspec.to_builtins(run.tally),
            lease_until_ms=run.created_at_ms,
            size=size,
            content=encrypted,
        )
        unfinished = select(func.count()).where(
            EvalRunRow.organization == organization, EvalRunRow.state.in_(UNFINISHED)
        )
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            if await session.get(EvalRow, run.eval) is None:
                raise NotFound(f"No eval found with id '{run.eval}'.", param="eval_id")
            await check_room(session, organization, size, quota_bytes=self._quota_bytes)
            if (await session.scalar(unfinished) or 0) >= MAX_UNFINISHED:
                raise RateLimited(
                    f"You have {MAX_UNFINISHED} eval runs that have not ended, which is the limit.", retry_after_s=10
                )
            session.add(row)

    async def get(self, organization: OrganizationId, project: ProjectId, eval_id: str, run: str) -> EvalRun:
        statement = select(EvalRunRow).where(EvalRunRow.id == run, *self._where(organization, project, eval_id))
        async with self._database.reading() as session:
            row = await session.scalar(statement)
        if row is None:
            raise _not_found(run)
        return await asyncio.to_thread(run_of, row, self._cipher)

    async def page(
        self,
        organization: OrganizationId,
        project: ProjectId,
        eval_id: str,
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
        state: EvalRunState | None,
    ) -> list[EvalRun]:
        """Return up to `limit` runs that follow `after`; one that is not there raises `InvalidRequest`."""
        query = select(EvalRunRow).where(*self._where(organization, project, eval_id))
        async with self._database.reading() as session:
            last = None
            if after is not None:
                last = await session.scalar(query.where(EvalRunRow.id == after))
                if last is None:
                    raise InvalidRequest(f"No such eval run: {after[:64]}", param="after")
            if state is not None:
                query = query.where(EvalRunRow.state == state)
            columns = EvalRunRow.created_at_ms, EvalRunRow.id
            part = part_of_list(query, *columns, after=last, limit=limit, newest_first=newest_first)
            rows = list(await session.scalars(part))
        return [await asyncio.to_thread(run_of, row, self._cipher) for row in rows]

    async def cancel(self, organization: OrganizationId, project: ProjectId, eval_id: str, run: str) -> EvalRun:
        """Let nothing more be asked for a run; one that was cancelled stays so, any other raises `InvalidRequest`."""
        of_run = EvalRunRow.id == run, *self._where(organization, project, eval_id)
        await self._end(EvalRunState.CANCELED, *of_run, EvalRunRow.state.in_(UNFINISHED))
        found = await self.get(organization, project, eval_id, run)
        if found.state is not EvalRunState.CANCELED:
            raise InvalidRequest(f"The run {found.id} has already ended.", code="run_not_cancellable", param="run_id")
        return found

    async def delete(self, organization: OrganizationId, project: ProjectId, eval_id: str, run: str) -> None:
        """Hide a run for ever; it goes, with its items, with the next round of a worker."""
        of_run = EvalRunRow.id == run, *self._where(organization, project, eval_id)
        if not await self._end(EvalRunState.DELETED, *of_run):
            raise _not_found(run)

    async def items(
        self,
        organization: OrganizationId,
        run: EvalRun,
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
        state: ItemState | None,
    ) -> list[StoredItem]:
        """Return up to `limit` items that have been graded and follow `after`, in the order of the rows."""
        query = select(EvalItemRow).where(*_graded(organization, run))
        async with self._database.reading() as session:
            last = None
            if after is not None:
                last = await session.scalar(query.where(EvalItemRow.id == after))
                if last is None:
                    raise InvalidRequest(f"No such output item: {after[:64]}", param="after")
            if state is not None:
                query = query.where(EvalItemRow.state == state)
            columns = EvalItemRow.number, EvalItemRow.id
            part = part_of_list(query, *columns, after=last, limit=limit, newest_first=newest_first)
            rows = list(await session.scalars(part))
        return [await asyncio.to_thread(item_of, row, self._cipher) for row in rows]

    async def item(self, organization: OrganizationId, run: EvalRun, item: str) -> StoredItem:
        statement = select(EvalItemRow).where(EvalItemRow.id == item, *_graded(organization, run))
        async with self._database.reading() as session:
            row = await session.scalar(statement)
        if row is None:
            raise NotFound(f"No output item found with id '{item[:64]}'.", param="output_item_id")
        return await asyncio.to_thread(item_of, row, self._cipher)

    async def _end(self, state: EvalRunState, *where: ColumnElement[bool]) -> bool:
        statement = update(EvalRunRow).where(*where).values(state=state, lease_owner=None).returning(EvalRunRow.id)
        async with self._database.transaction() as session:
            return await session.scalar(statement) is not None

    def _where(self, organization: OrganizationId, project: ProjectId, eval_id: str) -> list[ColumnElement[bool]]:
        return [
            EvalRunRow.eval == eval_id,
            EvalRunRow.organization == organization,
            EvalRunRow.project == project,
            EvalRunRow.state != EvalRunState.DELETED,
            EvalRunRow.created_at_ms > self._clock.now_ms() - self._retention_ms,
        ]


def _graded(organization: OrganizationId, run: EvalRun) -> list[ColumnElement[bool]]:
    return [
        EvalItemRow.organization == organization,
        EvalItemRow.run == run.id,
        EvalItemRow.state != ItemState.PENDING,
    ]


def _not_found(run: str) -> NotFound:
    return NotFound(f"No eval run found with id '{run[:64]}'.", param="run_id")
