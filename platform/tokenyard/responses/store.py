"""Kept answers of one organization and project; another's, and those past their time, are as if they were not there."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, delete, func, select, update
from sqlalchemy.orm import undefer

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.responses.content import ContentCipher
from tokenyard.responses.ports import AnswerToKeep, Json
from tokenyard.responses.tables import AnswerRow
from tokenyard.storage.bulk import insert_new
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list


class AnswerKind(StrEnum):
    RESPONSE = "response"
    CHAT = "chat.completion"


LEASE_MS = 30_000
BEING_MADE = frozenset({"queued", "in_progress"})
_NAMES = {AnswerKind.RESPONSE: "response", AnswerKind.CHAT: "chat completion"}


class StoredAnswer(msgspec.Struct, frozen=True):
    """A kept answer; `input` are the items or messages that were given for it, and in `deltas` it came."""

    id: str
    state: str
    metadata: Mapping[str, str]
    input: Sequence[Json]
    output: Json
    deltas: Sequence[object]

    @property
    def is_being_made(self) -> bool:
        return self.state in BEING_MADE


class AnswerStore:
    """Answers of one project at a time; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock, cipher: ContentCipher, *, retention_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._retention_ms = retention_ms

    async def used_bytes(self, organization: OrganizationId) -> int:
        """Return how many bytes all answers of the organization have."""
        async with self._database.reading() as session:
            return int(await session.scalar(select(answer_bytes(organization))) or 0)

    async def add(self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep, content: bytes) -> None:
        """Write an answer that is whole; one that is there already stays as it is."""
        await self._insert(organization, project, answer, content, lease_until_ms=None)

    async def begin(
        self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep, content: bytes
    ) -> None:
        """Write an answer that is yet to be made; whoever makes it renews its lease (`AnswerOperatorStore`)."""
        lease_until_ms = self._clock.now_ms() + LEASE_MS
        await self._insert(organization, project, answer, content, lease_until_ms=lease_until_ms)

    async def note(
        self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep, content: bytes
    ) -> None:
        """Write what has come of an answer that was begun, unless it has ended since."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.id == answer.id, *_being_made(organization, project))
            .values(content=content, size=len(content))
        )
        async with self._database.transaction() as session:
            await session.execute(statement)

    async def finish(
        self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep, content: bytes
    ) -> None:
        """Write an answer that was begun, unless it was ended otherwise since."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.id == answer.id, *_being_made(organization, project))
            .values(state=answer.state, content=content, size=len(content), lease_until_ms=None)
        )
        async with self._database.transaction() as session:
            await session.execute(statement)

    async def cancel(self, organization: OrganizationId, project: ProjectId, answer: str) -> StoredAnswer:
        """End a response that is being made; one that has ended stays as it is. Any other raises `InvalidRequest`."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.id == answer, *_being_made(organization, project))
            .values(state="cancelled", lease_until_ms=None)
        )
        async with self._database.transaction() as session:
            await session.execute(statement)
        found = await self.get(organization, project, AnswerKind.RESPONSE, answer)
        if not found.output.get("background"):
            raise InvalidRequest("Only a response that is made in the background can be cancelled.")
        return found

    async def _insert(
        self,
        organization: OrganizationId,
        project: ProjectId,
        answer: AnswerToKeep,
        content: bytes,
        *,
        lease_until_ms: int | None,
    ) -> None:
        row = {
            "id": answer.id,
            "organization": organization,
            "project": project,
            "kind": AnswerKind(answer.kind),
            "model": answer.model,
            "state": answer.state,
            "previous": answer.previous,
            "lease_until_ms": lease_until_ms,
            "details": dict(answer.metadata),
            "created_at_ms": self._clock.now_ms(),
            "size": len(content),
            "content": content,
        }
        async with self._database.transaction() as session:
            await insert_new(session, AnswerRow, [row])

    async def get(
        self, organization: OrganizationId, project: ProjectId, kind: AnswerKind, answer: str
    ) -> StoredAnswer:
        statement = (
            select(AnswerRow)
            .options(undefer(AnswerRow.content))
            .where(AnswerRow.id == answer, *self._where(organization, project, kind))
        )
        async with self._database.reading() as session:
            row = await session.scalar(statement)
        if row is None:
            raise _not_found(kind, answer)
        return await self._stored(row)

    async def page(
        self,
        organization: OrganizationId,
        project: ProjectId,
        kind: AnswerKind,
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
        model: str | None,
        metadata: Mapping[str, str] | None,
    ) -> list[StoredAnswer]:
        """Return up to `limit` answers that follow `after`; one that is not there raises `InvalidRequest`."""
        statement = (
            select(AnswerRow).options(undefer(AnswerRow.content)).where(*self._where(organization, project, kind))
        )
        if model is not None:
            statement = statement.where(AnswerRow.model == model)
        for key, value in (metadata or {}).items():
            statement = statement.where(AnswerRow.details[key].as_string() == value)
        async with self._database.reading() as session:
            last = None
            if after is not None:
                last = await session.scalar(
                    select(AnswerRow).where(AnswerRow.id == after, *self._where(organization, project, kind))
                )
                if last is None:
                    raise InvalidRequest(f"No such {_NAMES[kind]}: {after[:64]}", param="after")
            columns = AnswerRow.created_at_ms, AnswerRow.id
            part = part_of_list(statement, *columns, after=last, limit=limit, newest_first=newest_first)
            rows = list(await session.scalars(part))
        return [await self._stored(row) for row in rows]

    async def set_metadata(
        self,
        organization: OrganizationId,
        project: ProjectId,
        kind: AnswerKind,
        answer: str,
        metadata: Mapping[str, str],
    ) -> StoredAnswer:
        """Replace the metadata of an answer."""
        statement = (
            update(AnswerRow)
            .where(AnswerRow.id == answer, *self._where(organization, project, kind))
            .values(details=dict(metadata))
        )
        async with self._database.transaction() as session:
            await session.execute(statement)
        return await self.get(organization, project, kind, answer)

    async def delete(self, organization: OrganizationId, project: ProjectId, kind: AnswerKind, answer: str) -> None:
        """Remove an answer for ever."""
        statement = delete(AnswerRow).where(AnswerRow.id == answer, *self._where(organization, project, kind))
        async with self._database.transaction() as session:
            deleted = await session.scalar(statement.returning(AnswerRow.id))
        if deleted is None:
            raise _not_found(kind, answer)

    def _where(self, organization: OrganizationId, project: ProjectId, kind: AnswerKind) -> list[ColumnElement[bool]]:
        return [
            AnswerRow.organization == organization,
            AnswerRow.project == project,
            AnswerRow.kind == kind,
            AnswerRow.created_at_ms > self._clock.now_ms() - self._retention_ms,
        ]

    async def _stored(self, row: AnswerRow) -> StoredAnswer:
        content = await asyncio.to_thread(self._cipher.decrypt, row.id, row.content)
        return StoredAnswer(row.id, row.state, row.details, content.input, content.output, content.deltas)


def _being_made(organization: OrganizationId, project: ProjectId) -> list[ColumnElement[bool]]:
    return [
        AnswerRow.organization == organization,
        AnswerRow.project == project,
        AnswerRow.lease_until_ms.is_not(None),
    ]


def _not_found(kind: AnswerKind, answer: str) -> NotFound:
    return NotFound(f"No {_NAMES[kind]} found with id '{answer[:64]}'.", param="id")


def answer_bytes(organization: OrganizationId) -> ScalarSelect[int]:
    """Return a query of how much an organization's answers take: `storage.quota.StoredBytes`."""
    sizes = select(func.coalesce(func.sum(AnswerRow.size), 0)).where(AnswerRow.organization == organization)
    return sizes.scalar_subquery()
