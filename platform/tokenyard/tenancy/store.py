"""Projects and API keys of one organization."""

from collections.abc import Callable, Mapping

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, new_project_id
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.changes import OrganizationRevised, write_change
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, ProjectRow, stored_limits
from tokenyard.tenancy.views import ProjectDetails, ProjectKeyDetails

LimitsChange = Callable[[Limits], Limits]
_IN_PRINCIPAL = {"limits", "weight", "archived"}


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
    ) -> tuple[ProjectDetails, list[OutboxMessage]]:
        """Change what is not None; return the project, and what is to be carried."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _project(session, organization, project, to_change=True)
            details = write_changes(row, limits, name=name) | write_archived(row, archived, at=now_ms // 1000)
            messages = await revise_for(session, organization, details, now_ms)
            action = "project.archived" if archived else "project.updated"
            record(session, organization, actor, action, row.id, at=now_ms // 1000, details=details)
            return ProjectDetails.model_validate(row), messages

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
    ) -> tuple[ProjectKeyDetails, list[OutboxMessage]]:
        """Change what is not None; return the key, and what is to be carried. A revoked key raises `Conflict`."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _key(session, organization, key, to_change=True)
            if row.revoked_at is not None:
                raise Conflict(f"The API key `{key}` is revoked.")
            details = write_changes(row, limits, name=name)
            messages = await revise_for(session, organization, details, now_ms)
            record(session, organization, actor, "api_key.updated", row.id, at=now_ms // 1000, details=details)
            return ProjectKeyDetails.model_validate(row), messages

    async def revoke_key(self, organization: OrganizationId, key: str, *, actor: ApiKeyId) -> list[OutboxMessage]:
        """End a key for ever, and return what is to be carried; doing it again changes nothing."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _key(session, organization, key, to_change=True)
            if row.revoked_at is not None:
                return []
            row.revoked_at = now_ms // 1000
            record(session, organization, actor, "api_key.deleted", row.id, at=now_ms // 1000)
            return [await bump_revision(session, organization, now_ms)]

    async def monthly_limits(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId
    ) -> Mapping[str, NanoDollars]:
        """Return the monthly spending limit of each of the three scopes that has one, by its id."""
        queries = (
            select(ApiKeyRow.id, ApiKeyRow.limits).where(
                ApiKeyRow.organization_id == organization, ApiKeyRow.id == key
            ),
            select(ProjectRow.id, ProjectRow.limits).where(
                ProjectRow.organization_id == organization, ProjectRow.id == project
            ),
            select(OrganizationRow.id, OrganizationRow.limits).where(OrganizationRow.id == organization),
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


async def bump_revision(session: AsyncSession, organization: OrganizationId, now_ms: int) -> OutboxMessage:
    """Make every `Principal` of the organization outdated that was looked up before this transaction's commit."""
    bumped = update(OrganizationRow).where(OrganizationRow.id == organization)
    revision = await session.scalar(
        bumped.values(revision=OrganizationRow.revision + 1)
        .returning(OrganizationRow.revision)
        .execution_options(synchronize_session=False)
    )
    if revision is None:
        raise NotFound(f"No such organization: `{organization}`.")
    return await write_change(session, OrganizationRevised(organization, revision), now_ms)


async def revise_for(
    session: AsyncSession, organization: OrganizationId, details: Mapping[str, object], now_ms: int
) -> list[OutboxMessage]:
    """Bump the revision where `details`, of `write_changes`, tell of something that a `Principal` depends on."""
    return [await bump_revision(session, organization, now_ms)] if details.keys() & _IN_PRINCIPAL else []


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
