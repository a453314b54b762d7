"""Evals of one organization and project; another's are as if they were not there."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound, QuotaExceeded
from tokenyard.core.ids import EvalId, OrganizationId, ProjectId, new_eval_id
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.ports import Json
from tokenyard.evals.runs.run import EvalRunState
from tokenyard.evals.tables import EvalItemRow, EvalRow, EvalRunRow
from tokenyard.storage.database import Database, organization_lock
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.quota import StorageUse

OrderBy = Literal["created_at", "updated_at"]


class EvalContent(msgspec.Struct, frozen=True):
    """What is graded and how, as it was sent; `with_samples` where answers are a part of it."""

    item_schema: Json
    with_samples: bool
    testing_criteria: Sequence[Json]


class StoredEval(msgspec.Struct, frozen=True):
    """An eval; `created_at` is in unix seconds."""

    id: EvalId
    name: str
    metadata: Mapping[str, str]
    created_at: int
    content: EvalContent


class EvalStore:
    """Evals of one project at a time; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock, cipher: EvalCipher, *, quota_bytes: int) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._quota_bytes = quota_bytes

    async def create(
        self,
        organization: OrganizationId,
        project: ProjectId,
        *,
        name: str,
        metadata: Mapping[str, str],
        content: EvalContent,
    ) -> StoredEval:
        """Write an eval, or raise `QuotaExceeded` where the organization has no room for it."""
        eval_id, now_ms = new_eval_id(), self._clock.now_ms()
        encrypted = await asyncio.to_thread(self._cipher.encrypt, eval_id, content)
        size = len(encrypted) + noted_size(name, metadata)
        row = EvalRow(
            id=eval_id,
            organization=organization,
            project=project,
            name=name,
            details=dict(metadata),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            size=size,
            content=encrypted,
        )
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            await check_room(session, organization, size, quota_bytes=self._quota_bytes)
            session.add(row)
        return StoredEval(eval_id, name, metadata, now_ms // 1000, content)

    async def get(self, organization: OrganizationId, project: ProjectId, eval_id: str) -> StoredEval:
        async with self._database.reading() as session:
            row = await session.scalar(select(EvalRow).where(*_where(organization, project, eval_id)))
        if row is None:
            raise _not_found(eval_id)
        return await self._stored(row)

    async def page(
        self,
        organization: OrganizationId,
        project: ProjectId,
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
        order_by: OrderBy,
    ) -> list[StoredEval]:
        """Return up to `limit` evals that follow `after`; one that is not there raises `InvalidRequest`."""
        time = EvalRow.created_at_ms if order_by == "created_at" else EvalRow.updated_at_ms
        async with self._database.reading() as session:
            last = None
            if after is not None:
                last = await session.scalar(select(EvalRow).where(*_where(organization, project, after)))
                if last is None:
                    raise InvalidRequest(f"No such eval: {after[:64]}", param="after")
            query = select(EvalRow).where(*_where(organization, project))
            part = part_of_list(query, time, EvalRow.id, after=last, limit=limit, newest_first=newest_first)
            rows = list(await session.scalars(part))
        return [await self._stored(row) for row in rows]

    async def change(
        self,
        organization: OrganizationId,
        project: ProjectId,
        eval_id: str,
        *,
        name: str | None,
        metadata: Mapping[str, str] | None,
    ) -> StoredEval:
        """Replace what is given of an eval's name and metadata."""
        statement = select(EvalRow).where(*_where(organization, project, eval_id))
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            row = await session.scalar(statement)
            if row is None:
                raise _not_found(eval_id)
            before = noted_size(row.name, row.details)
            row.name = row.name if name is None else name
            row.details = row.details if metadata is None else dict(metadata)
            more = noted_size(row.name, row.details) - before
            if more > 0:
                await check_room(session, organization, more, quota_bytes=self._quota_bytes)
            row.size += more
            row.updated_at_ms = self._clock.now_ms()
        return await self._stored(row)

    async def delete(self, organization: OrganizationId, project: ProjectId, eval_id: str) -> None:
        """Remove an eval for ever, and let its runs go with it."""
        statement = delete(EvalRow).where(*_where(organization, project, eval_id)).returning(EvalRow.id)
        runs = (
            update(EvalRunRow)
            .where(EvalRunRow.eval == eval_id, EvalRunRow.organization == organization)
            .values(state=EvalRunState.DELETED, lease_owner=None)
        )
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            if await session.scalar(statement) is None:
                raise _not_found(eval_id)
            await session.execute(runs)

    async def _stored(self, row: EvalRow) -> StoredEval:
        content = await asyncio.to_thread(self._cipher.decrypt, row.id, row.content, EvalContent)
        return StoredEval(EvalId(row.id), row.name, row.details, row.created_at_ms // 1000, content)


def noted_size(name: str, metadata: Mapping[str, str]) -> int:
    """Return the bytes of what a client notes of a thing of its own, as they count for the quota."""
    return len(msgspec.json.encode((name, metadata)))


async def check_room(session: AsyncSession, organization: OrganizationId, more: int, *, quota_bytes: int) -> None:
    """Raise `QuotaExceeded` where the organization's evals, runs and items leave no room for `more` bytes."""
    if await StorageUse(eval_bytes).of(session, organization) + more > quota_bytes:
        raise QuotaExceeded(
            f"Your organization's evals have reached the limit of {quota_bytes} bytes. Delete some, or runs of them.",
            code="storage_quota_exceeded",
        )


def eval_bytes(organization: OrganizationId) -> ScalarSelect[int]:
    """Return a query of how much an organization's evals, runs and items take: `storage.quota.StoredBytes`."""
    evals, runs, items = (
        select(func.coalesce(func.sum(row.size), 0)).where(row.organization == organization).scalar_subquery()
        for row in (EvalRow, EvalRunRow, EvalItemRow)
    )
    return select(evals + runs + items).scalar_subquery()


def _where(organization: OrganizationId, project: ProjectId, eval_id: str | None = None) -> list[ColumnElement[bool]]:
    of_project = [EvalRow.organization == organization, EvalRow.project == project]
    return of_project if eval_id is None else [EvalRow.id == eval_id, *of_project]


def _not_found(eval_id: str) -> NotFound:
    return NotFound(f"No eval found with id '{eval_id[:64]}'.", param="eval_id")
