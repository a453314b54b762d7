"""Projects and API keys of one organization."""

from collections.abc import Callable, Mapping

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, new_project_id
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.tenancy.keys import KeyVersion
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, ProjectRow, stored_limits
from tokenyard.tenancy.views import ProjectDetails, ProjectKeyDetails

LimitsChange = Callable[[Limits], Limits]


class TenancyStore:
    """Every method sees one organization's rows; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create_project(
        self, organization: OrganizationId, *, name: str, limits: Limits, actor: ApiKeyId
    ) -> ProjectDetails:
        now = self._clock.now_ms() // 1000
        row = ProjectRow(id=new_project_id(), organization_id=organization, name=name, limits=limits, created_at=now)
        async with self._database.transaction() as session:
            session.add(row)
            record(session, organization, actor, "project.created", row.id, at=now)
            return ProjectDetails.model_validate(row)

    async def projects(self, organization: OrganizationId, *, after: str | None, limit: int) -> list[ProjectDetails]:
        """Return projects in the order of their creation, beginning behind the one called `after`."""
        query = select(ProjectRow).where(ProjectRow.organization_id == organization)
        async with self._database.reading() as session:
            last = None if after is None else await _project(session, organization, after)
            columns = ProjectRow.created_at, ProjectRow.id
            part = part_of_list(query, *columns, after=last, limit=limit, newest_first=False)
            return [ProjectDetails.model_validate(row) for row in await session.scalars(part)]

    async def project(self, organization: OrganizationId, project: str) -> ProjectDetails:
        async with self._database.reading() as session:
            return ProjectDetails.model_validate(await _project(session, organization, project))

    async def change_project(
        self,
        organization: OrganizationId,
        project: str,
        *,
        name: str | None,
        limits: LimitsChange | None,
        archived: bool | None,
        actor: ApiKeyId,
    ) -> tuple[ProjectDetails, list[KeyVersion]]:
        """Change what is not None; return the project and the versions of the keys that this ended."""
        now_ms = self._clock.now_ms()
        ended: list[KeyVersion] = []
        async with self._database.transaction() as session:
            row = await _project(session, organization, project, to_change=True)
            details = write_changes(row, limits, name=name) | write_archived(row, archived, at=now_ms // 1000)
            if details.get("archived"):
                ended = await end_keys(session, organization, now_ms, ApiKeyRow.project_id == row.id)
            action = "project.archived" if archived else "project.updated"
            record(session, organization, actor, action, row.id, at=now_ms // 1000, details=details)
            return ProjectDetails.model_validate(row), ended

    async def add_key(self, organization: OrganizationId, row: ApiKeyRow, *, actor: ApiKeyId) -> ProjectKeyDetails:
        """Store a new key of a project of the organization; an archived one is not found."""
        async with self._database.transaction() as session:
            project = await _project(session, organization, row.project_id or "")
            if project.archived_at is not None:
                raise NotFound(f"The project `{project.id}` is archived.")
            row.organization_id = organization
            session.add(row)
            details: dict[str, object] = {"name": row.name, "project": project.id}
            record(session, organization, actor, "api_key.created", row.id, at=row.created_at, details=details)
            return ProjectKeyDetails.model_validate(row)

    async def keys(
        self, organization: OrganizationId, *, project: str | None, after: str | None, limit: int
    ) -> list[ProjectKeyDetails]:
        """Return keys that are not revoked, in the order of their creation, beginning behind `after`."""
        query = select(ApiKeyRow).where(ApiKeyRow.organization_id == organization, ApiKeyRow.revoked_at.is_(None))
        if project is not None:
            query = query.where(ApiKeyRow.project_id == project)
        async with self._database.reading() as session:
            last = None if after is None else await _key(session, organization, after)
            columns = ApiKeyRow.created_at, ApiKeyRow.id
            part = part_of_list(query, *columns, after=last, limit=limit, newest_first=False)
            return [ProjectKeyDetails.model_validate(row) for row in await session.scalars(part)]

    async def key(
        self, organization: OrganizationId, key: str, *, project: ProjectId | None = None
    ) -> ProjectKeyDetails:
        """Return one key, also a revoked one; of `project` only, where that is given."""
        async with self._database.reading() as session:
            found = ProjectKeyDetails.model_validate(await _key(session, organization, key))
        if project is not None and found.project_id != project:
            raise NotFound(f"No such API key: `{key}`.")
        return found

    async def change_key(
        self,
        organization: OrganizationId,
        key: str,
        *,
        name: str | None,
        limits: LimitsChange | None,
        actor: ApiKeyId,
    ) -> ProjectKeyDetails:
        """Change what is not None; a revoked key raises `Conflict`."""
        # Its version stays: a gateway that knows the key from before must go on to serve it.
        async with self._database.transaction() as session:
            row = await _key(session, organization, key, to_change=True)
            if row.revoked_at is not None:
                raise Conflict(f"The API key `{key}` is revoked.")
            details = write_changes(row, limits, name=name)
            at = self._clock.now_ms() // 1000
            record(session, organization, actor, "api_key.updated", row.id, at=at, details=details)
            return ProjectKeyDetails.model_validate(row)

    async def revoke_key(self, organization: OrganizationId, key: str, *, actor: ApiKeyId) -> KeyVersion:
        """End a key for ever; doing it again changes nothing. Return its version from now on."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _key(session, organization, key, to_change=True)
            if row.revoked_at is None:
                row.revoked_at = now_ms // 1000
                row.version += 1
                row.changed_ms = now_ms
                record(session, organization, actor, "api_key.deleted", row.id, at=now_ms // 1000)
            return KeyVersion(organization, ApiKeyId(row.id), row.version)

    async def monthly(self, organization: OrganizationId) -> Mapping[str, NanoDollars]:
        """Return the monthly spending limit of each scope that has one: organization, projects and live keys, by id."""
        queries = (
            select(OrganizationRow.id, OrganizationRow.limits).where(OrganizationRow.id == organization),
            select(ProjectRow.id, ProjectRow.limits).where(ProjectRow.organization_id == organization),
            select(ApiKeyRow.id, ApiKeyRow.limits).where(
                ApiKeyRow.organization_id == organization, ApiKeyRow.revoked_at.is_(None)
            ),
        )
        found: dict[str, NanoDollars] = {}
        async with self._database.reading() as session:
            for query in queries:
                for scope, limits in await session.execute(query):
                    if limits.monthly_spend is not None:
                        found[scope] = limits.monthly_spend
        return found


def write_changes(
    row: OrganizationRow | ProjectRow | ApiKeyRow, limits: LimitsChange | None, **fields: str | int | None
) -> dict[str, object]:
    """Write what is not None; return what the audit log says of it."""
    details: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
    for name, value in details.items():
        setattr(row, name, value)
    if limits is not None:
        row.limits = limits(row.limits)
        details["limits"] = stored_limits(row.limits)
    return details


def write_archived(row: OrganizationRow | ProjectRow, archived: bool | None, *, at: int) -> dict[str, object]:
    """Archive or bring back, where that is not None and changes anything, at `at` unix seconds; return the same."""
    if archived is None or archived == (row.archived_at is not None):
        return {}
    row.archived_at = at if archived else None
    return {"archived": archived}


def record(
    session: AsyncSession,
    organization: OrganizationId | None,
    actor: ApiKeyId,
    action: str,
    resource: str,
    *,
    at: int,
    details: dict[str, object] | None = None,
) -> None:
    """Add to the audit log, in the transaction of the change itself, at `at` unix seconds. No secrets in `details`."""
    row = AuditRow(organization_id=organization, actor=actor, action=action, resource=resource, at=at)
    row.details = details or {}
    session.add(row)


async def end_keys(
    session: AsyncSession, organization: OrganizationId, now_ms: int, which: ColumnElement[bool]
) -> list[KeyVersion]:
    """Make every cached copy of the organization's keys `which` invalid at once."""
    rows = await session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.organization_id == organization, which)
        .values(version=ApiKeyRow.version + 1, changed_ms=now_ms)
        .returning(ApiKeyRow.id, ApiKeyRow.version)
    )
    return [KeyVersion(organization, ApiKeyId(key), version) for key, version in rows]


async def _project(
    session: AsyncSession, organization: OrganizationId, project: str, *, to_change: bool = False
) -> ProjectRow:
    query = select(ProjectRow).where(ProjectRow.organization_id == organization, ProjectRow.id == project)
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"No such project: `{project}`.")
    return row


async def _key(session: AsyncSession, organization: OrganizationId, key: str, *, to_change: bool = False) -> ApiKeyRow:
    query = select(ApiKeyRow).where(ApiKeyRow.organization_id == organization, ApiKeyRow.id == key)
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"No such API key: `{key}`.")
    return row
