"""Uploaded files of one organization. A record without its bytes, or bytes without a record, the worker cleans up."""

from contextlib import nullcontext
from enum import StrEnum

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import FileId, OrganizationId, ProjectId
from tokenyard.files.ports import FilesInUse, Json
from tokenyard.files.tables import FileRow
from tokenyard.storage.database import Database, organization_lock
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.quota import StorageQuota


class FileState(StrEnum):
    """Only `processed` files are seen by anybody but the worker that cleans up."""

    UPLOADING = "uploading"
    PROCESSED = "processed"
    DELETING = "deleting"


class StoredFile(msgspec.Struct, frozen=True):
    """An uploaded file. `summary` is there where it was checked as a training file; times are unix seconds."""

    id: FileId
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    summary: Json | None


class FileStore:
    """Files of one organization at a time; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock, in_use: FilesInUse) -> None:
        self._database = database
        self._clock = clock
        self._in_use = in_use

    def path(self, organization: OrganizationId, file: FileId) -> str:
        return f"files/{organization}/{file}"

    async def begin(self, organization: OrganizationId, project: ProjectId, file: FileId) -> int:
        """Note that bytes are about to be written, so that they are never forgotten; return `created_at`."""
        created_at_ms = self._clock.now_ms()
        row = FileRow(
            id=file,
            organization=organization,
            project=project,
            filename="",
            purpose="",
            state=FileState.UPLOADING,
            bytes=0,
            created_at_ms=created_at_ms,
        )
        async with self._database.transaction() as session:
            session.add(row)
        return created_at_ms // 1000

    async def complete(self, organization: OrganizationId, file: StoredFile, quota: StorageQuota) -> None:
        """Make the file visible: its bytes are all there. Where they are too many, `QuotaExceeded` is raised."""
        statement = (
            update(FileRow)
            .where(FileRow.id == file.id, FileRow.organization == organization)
            .values(
                filename=file.filename,
                purpose=file.purpose,
                bytes=file.bytes,
                expires_at=file.expires_at,
                summary=file.summary,
                state=FileState.PROCESSED,
            )
        )
        async with self._database.transaction() as session:
            await quota.take(session, organization, file.bytes, param="file")
            await session.execute(statement)

    async def enter(
        self,
        organization: OrganizationId,
        session: AsyncSession,
        *,
        project: ProjectId,
        file: FileId,
        filename: str,
        purpose: str,
        size: int,
    ) -> None:
        """Enter a file of the platform's own making, whose bytes are there, as part of the caller's transaction."""
        session.add(
            FileRow(
                id=file,
                organization=organization,
                project=project,
                filename=filename,
                purpose=purpose,
                state=FileState.PROCESSED,
                bytes=size,
                created_at_ms=self._clock.now_ms(),
            )
        )

    async def get(self, organization: OrganizationId, file: FileId, session: AsyncSession | None = None) -> StoredFile:
        """Return a file, as part of the caller's transaction where a session is given."""
        statement = select(FileRow).where(FileRow.id == file, *self._visible(organization))
        async with nullcontext(session) if session is not None else self._database.reading() as reading:
            row = await reading.scalar(statement)
            if row is None:
                raise NotFound(f"No such File object: {file[:64]}", param="id")
            return _stored(row)

    async def page(
        self, organization: OrganizationId, *, purpose: str | None, limit: int, after: str | None, newest_first: bool
    ) -> list[StoredFile]:
        """Return up to `limit` files that follow `after`; one that is not there raises `InvalidRequest`."""
        statement = select(FileRow).where(*self._visible(organization))
        if purpose is not None:
            statement = statement.where(FileRow.purpose == purpose)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(FileRow, after)
            if after is not None and (last is None or last.organization != organization):
                raise InvalidRequest(f"No such File object: {after[:64]}", param="after")
            columns = FileRow.created_at_ms, FileRow.id
            part = part_of_list(statement, *columns, after=last, limit=limit, newest_first=newest_first)
            return [_stored(row) for row in await session.scalars(part)]

    async def begin_delete(self, organization: OrganizationId, file: FileId) -> None:
        """Hide the file for ever; its bytes go next. One that an unfinished job needs raises `InvalidRequest`."""
        in_use = self._in_use()
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            await self.get(organization, file, session)
            job = await session.scalar(select(in_use.c.job).where(in_use.c.file == file).limit(1))
            if job is not None:
                raise InvalidRequest(f"The file is in use by the fine-tuning job {job}.", code="file_in_use")
            await session.execute(
                update(FileRow)
                .where(FileRow.id == file, FileRow.organization == organization)
                .values(state=FileState.DELETING)
            )

    async def forget(self, organization: OrganizationId, file: FileId) -> None:
        """Remove the record: its bytes are gone."""
        async with self._database.transaction() as session:
            await session.execute(delete(FileRow).where(FileRow.id == file, FileRow.organization == organization))

    def _visible(self, organization: OrganizationId) -> list[ColumnElement[bool]]:
        return [
            FileRow.organization == organization,
            FileRow.state == FileState.PROCESSED,
            or_(FileRow.expires_at.is_(None), FileRow.expires_at > self._clock.now_ms() // 1000),
        ]


def file_bytes(organization: OrganizationId) -> ScalarSelect[int]:
    """Return a query of how much an organization's files take: `storage.quota.StoredBytes`."""
    sizes = select(func.coalesce(func.sum(FileRow.bytes), 0)).where(FileRow.organization == organization)
    return sizes.scalar_subquery()


def _stored(row: FileRow) -> StoredFile:
    return StoredFile(
        id=FileId(row.id),
        filename=row.filename,
        purpose=row.purpose,
        bytes=row.bytes,
        created_at=row.created_at_ms // 1000,
        expires_at=row.expires_at,
        summary=row.summary,
    )
