"""Projects and API keys of one organization."""

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, new_project_id
from tokenyard.core.principal import Limits
from tokenyard.storage.database import Database
from tokenyard.tenancy.rows import key_view, project_view, record
from tokenyard.tenancy.tables import ApiKeyRow, ProjectRow
from tokenyard.tenancy.views import ApiKey, KeyVersion, Project, write_limits


class TenancyStore:
    """Every method sees one organization's rows; another's look as if they did not exist."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create_project(
        self, organization: OrganizationId, *, name: str, limits: Limits, actor: ApiKeyId
    ) -> Project:
        """Create a project in an existing organization."""
        now = self._clock.now_ms() // 1000
        row = ProjectRow(
            id=new_project_id(), organization=organization, name=name, limits=write_limits(limits), created=now
        )
        async with self._database.transaction() as session:
            session.add(row)
            record(session, organization=organization, actor=actor, action="project.created", resource=row.id, at=now)
            return project_view(row)

    async def projects(self, organization: OrganizationId, *, after: str | None, limit: int) -> list[Project]:
        """Return projects in the order of their creation, beginning behind the one called `after`.

        Raises:
            NotFound: there is no project `after`.
        """
        query = select(ProjectRow).where(ProjectRow.organization == organization)
        async with self._database.reading() as session:
            if after is not None:
                query = query.where(_behind(ProjectRow, await _project(session, organization, after)))
            rows = await session.scalars(query.order_by(ProjectRow.created, ProjectRow.id).limit(limit))
            return [project_view(row) for row in rows]

    async def project(self, organization: OrganizationId, project: str) -> Project:
        """Return one project.

        Raises:
            NotFound: the organization has none with this id.
        """
        async with self._database.reading() as session:
            return project_view(await _project(session, organization, project))

    async def change_project(
        self,
        organization: OrganizationId,
        project: str,
        *,
        name: str | None,
        limits: Limits | None,
        archived: bool | None,
        actor: ApiKeyId,
    ) -> tuple[Project, list[KeyVersion]]:
        """Change what is not None; return the project and the versions of the keys that this ended.

        Raises:
            NotFound: the organization has none with this id.
        """
        now_ms = self._clock.now_ms()
        ended: list[KeyVersion] = []
        async with self._database.transaction() as session:
            row = await _project(session, organization, project)
            if name is not None:
                row.name = name
            if limits is not None:
                row.limits = write_limits(limits)
            if archived is not None and archived != (row.archived is not None):
                row.archived = now_ms // 1000 if archived else None
                if archived:
                    ended = await end_keys(session, organization, now_ms, ApiKeyRow.project == row.id)
            record(
                session,
                organization=organization,
                actor=actor,
                action="project.archived" if archived else "project.updated",
                resource=row.id,
                at=now_ms // 1000,
                details=_given(name=name, limits=limits and write_limits(limits), archived=archived),
            )
            return project_view(row), ended

    async def add_key(self, organization: OrganizationId, row: ApiKeyRow, *, actor: ApiKeyId) -> ApiKey:
        """Store a new key of a live project of the organization.

        Raises:
            NotFound: the organization has no such project, or it is archived.
        """
        async with self._database.transaction() as session:
            project = await _project(session, organization, row.project or "")
            if project.archived is not None:
                raise NotFound(f"The project `{project.id}` is archived.")
            row.organization = organization
            session.add(row)
            record(
                session,
                organization=organization,
                actor=actor,
                action="api_key.created",
                resource=row.id,
                at=row.created,
                details={"name": row.name, "project": project.id},
            )
            return key_view(row)

    async def keys(
        self, organization: OrganizationId, *, project: str | None, after: str | None, limit: int
    ) -> list[ApiKey]:
        """Return keys that are not revoked, in the order of their creation, beginning behind `after`.

        Raises:
            NotFound: there is no key `after`.
        """
        query = select(ApiKeyRow).where(ApiKeyRow.organization == organization, ApiKeyRow.revoked.is_(None))
        if project is not None:
            query = query.where(ApiKeyRow.project == project)
        async with self._database.reading() as session:
            if after is not None:
                query = query.where(_behind(ApiKeyRow, await _key(session, organization, after)))
            rows = await session.scalars(query.order_by(ApiKeyRow.created, ApiKeyRow.id).limit(limit))
            return [key_view(row) for row in rows]

    async def key(self, organization: OrganizationId, key: str, *, project: str | None = None) -> ApiKey:
        """Return one key, also a revoked one; of `project` only, where that is given.

        Raises:
            NotFound: the organization, or the project, has none with this id.
        """
        async with self._database.reading() as session:
            found = key_view(await _key(session, organization, key))
        if project is not None and found.project != project:
            raise NotFound(f"No such API key: `{key}`.")
        return found

    async def revoke_key(self, organization: OrganizationId, key: str, *, actor: ApiKeyId) -> KeyVersion:
        """End a key for ever; doing it again changes nothing. Return its version from now on.

        Raises:
            NotFound: the organization has none with this id.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _key(session, organization, key)
            if row.revoked is None:
                row.revoked = now_ms // 1000
                row.version += 1
                row.changed_ms = now_ms
                record(
                    session,
                    organization=organization,
                    actor=actor,
                    action="api_key.deleted",
                    resource=row.id,
                    at=now_ms // 1000,
                )
            return KeyVersion(organization, ApiKeyId(row.id), row.version)


async def end_keys(
    session: AsyncSession, organization: OrganizationId, now_ms: int, which: ColumnElement[bool]
) -> list[KeyVersion]:
    """Make every cached copy of the organization's keys `which` invalid at once."""
    rows = await session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.organization == organization, which)
        .values(version=ApiKeyRow.version + 1, changed_ms=now_ms)
        .returning(ApiKeyRow.id, ApiKeyRow.version)
    )
    return [KeyVersion(organization, ApiKeyId(key), version) for key, version in rows]


async def _project(session: AsyncSession, organization: OrganizationId, project: str) -> ProjectRow:
    row = await session.scalar(
        select(ProjectRow).where(ProjectRow.organization == organization, ProjectRow.id == project)
    )
    if row is None:
        raise NotFound(f"No such project: `{project}`.")
    return row


async def _key(session: AsyncSession, organization: OrganizationId, key: str) -> ApiKeyRow:
    row = await session.scalar(select(ApiKeyRow).where(ApiKeyRow.organization == organization, ApiKeyRow.id == key))
    if row is None:
        raise NotFound(f"No such API key: `{key}`.")
    return row


def _behind(table: type[ProjectRow] | type[ApiKeyRow], row: ProjectRow | ApiKeyRow) -> ColumnElement[bool]:
    return or_(table.created > row.created, and_(table.created == row.created, table.id > row.id))


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
