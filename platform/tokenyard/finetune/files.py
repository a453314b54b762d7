"""The records of uploaded files. A record without its bytes, or bytes without a record, is cleaned up by the worker."""

from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import FileId, OrganizationId, ProjectId
from tokenyard.finetune.dataset import DatasetSummary
from tokenyard.finetune.states import UNFINISHED
from tokenyard.finetune.tables import FileRow, JobRow
from tokenyard.storage.advisory_lock import advisory_lock
from tokenyard.storage.database import Database
from tokenyard.storage.paging import beyond, cut

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
FINE_TUNE = "fine-tune"


class FileState(StrEnum):
    """Only `processed` files are seen by anybody but the worker that cleans up."""

    UPLOADING = "uploading"
    PROCESSED = "processed"
    DELETING = "deleting"


class FileView(msgspec.Struct, frozen=True):
    """An uploaded file. `summary` is there where it is a training file."""

    id: FileId
    organization: OrganizationId
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    summary: DatasetSummary | None

    def as_openai(self) -> dict[str, Any]:
        """Return OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def file_path(organization: OrganizationId, file: FileId) -> str:
    """Return the blob path of a file's bytes."""
    return f"files/{organization}/{file}"


def file_not_found(file: str, param: str | None = "id") -> NotFound:
    """Return the error for a file that is not there, or is somebody else's."""
    return NotFound(f"No such File object: {file[:64]}", param=param)


class FileStore:
    """Files of one organization at a time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

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

    async def complete(self, organization: OrganizationId, view: FileView) -> None:
        """Make the file visible: its bytes are all there."""
        statement = (
            update(FileRow)
            .where(FileRow.id == view.id, FileRow.organization == organization)
            .values(
                filename=view.filename,
                purpose=view.purpose,
                bytes=view.bytes,
                expires_at=view.expires_at,
                summary=msgspec.to_builtins(view.summary),
                state=FileState.PROCESSED,
            )
        )
        async with self._database.transaction() as session:
            await session.execute(statement)

    async def get(self, organization: OrganizationId, file: FileId) -> FileView:
        """Return a file.

        Raises:
            NotFound: there is none, or it belongs to another organization.
        """
        async with self._database.reading() as session:
            return await find_file(session, organization, file, self._clock.now_ms() // 1000)

    async def page(
        self,
        organization: OrganizationId,
        *,
        purpose: str | None,
        limit: int,
        after: FileId | None,
        newest_first: bool,
    ) -> tuple[list[FileView], bool]:
        """Return one page and whether there is more.

        Raises:
            InvalidRequest: `after` is not a file of this organization.
        """
        now = self._clock.now_ms() // 1000
        statement = select(FileRow).where(*_visible(organization, now))
        if purpose is not None:
            statement = statement.where(FileRow.purpose == purpose)
        async with self._database.reading() as session:
            if after is not None:
                cursor = await session.get(FileRow, after)
                if cursor is None or cursor.organization != organization:
                    raise InvalidRequest(f"No such File object: {after[:64]}", param="after")
                place = (cursor.created_at_ms, cursor.id)
                statement = statement.where(beyond(FileRow.created_at_ms, FileRow.id, place, newest_first=newest_first))
            columns = (FileRow.created_at_ms, FileRow.id)
            order = [column.desc() if newest_first else column.asc() for column in columns]
            rows = await session.scalars(statement.order_by(*order).limit(limit + 1))
            return cut([view_of(row) for row in rows], limit)

    async def begin_delete(self, organization: OrganizationId, file: FileId) -> None:
        """Hide the file for ever; its bytes go next.

        Raises:
            NotFound: there is none, or it belongs to another organization.
            InvalidRequest: an unfinished job needs it.
        """
        async with self._database.transaction() as session:
            await advisory_lock(session, f"organization:{organization}")
            await find_file(session, organization, file, self._clock.now_ms() // 1000)
            job = await session.scalar(
                select(JobRow.id).where(
                    JobRow.organization == organization,
                    JobRow.state.in_(UNFINISHED),
                    or_(JobRow.training_file == file, JobRow.validation_file == file),
                )
            )
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


async def find_file(session: AsyncSession, organization: OrganizationId, file: str, now: int) -> FileView:
    """Return a file within an open transaction.

    Raises:
        NotFound: there is none, or it belongs to another organization.
    """
    row = await session.scalar(select(FileRow).where(FileRow.id == file, *_visible(organization, now)))
    if row is None:
        raise file_not_found(file)
    return view_of(row)


def _visible(organization: OrganizationId, now: int) -> list[ColumnElement[bool]]:
    return [
        FileRow.organization == organization,
        FileRow.state == FileState.PROCESSED,
        or_(FileRow.expires_at.is_(None), FileRow.expires_at > now),
    ]


def view_of(row: FileRow) -> FileView:
    """Return what a row says."""
    return FileView(
        id=FileId(row.id),
        organization=OrganizationId(row.organization),
        filename=row.filename,
        purpose=row.purpose,
        bytes=row.bytes,
        created_at=row.created_at_ms // 1000,
        expires_at=row.expires_at,
        summary=msgspec.convert(row.summary, DatasetSummary) if row.summary else None,
    )
