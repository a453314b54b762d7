"""Projects and API keys of one organization."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, new_project_id
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.audit import EVERY_CHANGE, AuditFilter, read_audit_log
from tokenyard.tenancy.changes import OrganizationRevised, write_change
from tokenyard.tenancy.plans.combination import NO_LIMITS, effective_limits
from tokenyard.tenancy.plans.rules import Expiry, Rules
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, PlanRow, ProjectRow, as_stored
from tokenyard.tenancy.views import AuditEntry, ProjectDetails, ProjectKeyDetails

LimitsChange = Callable[[Limits], Limits]
NO_RULES: Rules = MappingProxyType({})
_KEY_RULES = ("limits", "models", "model_limits", "scopes", "addresses", "expires_at")
_UNSTATED: tuple[object, ...] = (None, NO_LIMITS, {})
MAX_KEYS = 1_000
"""Keys of an organization that are neither revoked nor expired."""
_NOT_IN_PRINCIPAL = {"name", "alert_percents", "pinned_adapters", "training"}


class TenancyStore:
    """Every method sees one organization's rows; another's raise `NotFound`, as if they did not exist."""

    def __init__(self, database: Database, clock: Clock, *, max_keys: int = MAX_KEYS) -> None:
        self._database = database
        self._clock = clock
        self._max_keys = max_keys

    async def create_project(
        self, organization: OrganizationId, *, name: str, limits: Limits, actor: ApiKeyId, rules: Rules = NO_RULES
    ) -> ProjectDetails:
        now = self._clock.now_ms() // 1000
        row = ProjectRow(id=new_project_id(), organization_id=organization, name=name, limits=limits, created_at=now)
        row.model_limits = {}
        change = AuditedChange(row)
        change.follow(rules)
        change.before.clear()
        async with self._database.transaction() as session:
            session.add(row)
            record(session, organization, actor, "project.created", row.id, at=now, change=change)
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
        rules: Rules = NO_RULES,
    ) -> tuple[ProjectDetails, list[OutboxMessage]]:
        """Change what is not None, and follow `rules`; return the project, and what is to be carried."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _project(session, organization, project, to_change=True)
            change = write_changes(row, limits, rules, name=name)
            change.archive(archived, at=now_ms // 1000)
            messages = await revise_for(session, organization, change, now_ms)
            action = "project.archived" if archived else "project.updated"
            record(session, organization, actor, action, row.id, at=now_ms // 1000, change=change)
            return ProjectDetails.model_validate(row), messages

    async def add_key(self, organization: OrganizationId, row: ApiKeyRow, *, actor: ApiKeyId) -> ProjectKeyDetails:
        """Store a new key of a project of the organization.

        Raises:
            NotFound: it has no such project, or that is archived.
            Conflict: it has as many keys as one may have.
        """
        async with self._database.transaction() as session:
            # Keys that are made at the same moment must each count the others.
            await session.execute(
                select(OrganizationRow.id).where(OrganizationRow.id == organization).with_for_update()
            )
            live = await session.scalar(select(func.count()).where(*_live_keys(organization, row.created_at)))
            if live is not None and live >= self._max_keys:
                message = f"An organization may have {self._max_keys} API keys. Revoke one first."
                raise Conflict(message, code="too_many_keys")
            project = await _project(session, organization, row.project_id or "")
            if project.archived_at is not None:
                raise NotFound(f"The project `{project.id}` is archived.")
            row.organization_id = organization
            session.add(row)
            details: dict[str, object] = {"name": row.name, "project": project.id}
            details |= {
                name: as_stored(getattr(row, name)) for name in _KEY_RULES if getattr(row, name) not in _UNSTATED
            }
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
        rules: Rules = NO_RULES,
        expiry: Expiry | None = None,
    ) -> tuple[ProjectKeyDetails, list[OutboxMessage]]:
        """Change what is not None, and follow `rules`; return the key, and what is to be carried.

        A revoked key raises `Conflict`.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _key(session, organization, key, to_change=True)
            if row.revoked_at is not None:
                raise Conflict(f"The API key `{key}` is revoked.")
            change = write_changes(row, limits, rules, name=name)
            if expiry is not None:
                change.set("expires_at", None if expiry.in_s is None else now_ms // 1000 + expiry.in_s)
            messages = await revise_for(session, organization, change, now_ms)
            record(session, organization, actor, "api_key.updated", row.id, at=now_ms // 1000, change=change)
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
        of_key = select(ApiKeyRow.limits).where(ApiKeyRow.organization_id == organization, ApiKeyRow.id == key)
        of_project = select(ProjectRow.limits).where(
            ProjectRow.organization_id == organization, ProjectRow.id == project
        )
        of_all = (
            select(OrganizationRow.limits, PlanRow.limits)
            .outerjoin(PlanRow, PlanRow.id == OrganizationRow.plan_id)
            .where(OrganizationRow.id == organization)
        )
        async with self._database.reading() as session:
            found: dict[str, Limits | None] = {
                key: await session.scalar(of_key),
                project: await session.scalar(of_project),
            }
            for own, plan in await session.execute(of_all):
                found[organization] = effective_limits(own, plan or NO_LIMITS)
        spends = ((scope, None if limits is None else limits.monthly_spend) for scope, limits in found.items())
        return {scope: spend for scope, spend in spends if spend is not None}

    async def audit_log(
        self, organization: OrganizationId, wanted: AuditFilter = EVERY_CHANGE, *, before: int | None, limit: int
    ) -> list[AuditEntry]:
        """Return changes of the organization, as `read_audit_log` does."""
        async with self._database.reading() as session:
            return await read_audit_log(session, organization, wanted, before=before, limit=limit)


class AuditedChange:
    """Changes a row, and writes down what stood there and what stands there now."""

    def __init__(self, row: PlanRow | OrganizationRow | ProjectRow | ApiKeyRow) -> None:
        self._row = row
        self.before: dict[str, object] = {}
        self.after: dict[str, object] = {}

    def set(self, name: str, value: object) -> None:
        self.before[name] = as_stored(getattr(self._row, name))
        setattr(self._row, name, value)
        self.after[name] = as_stored(value)

    def follow(self, rules: Rules) -> None:
        for name, changed in rules.items():
            self.set(name, changed(getattr(self._row, name)))

    def archive(self, archived: bool | None, *, at: int) -> None:
        """Archive or bring back, where that is not None and changes anything, at `at` unix seconds."""
        row = self._row
        assert isinstance(row, OrganizationRow | ProjectRow)
        if archived is not None and archived != (row.archived_at is not None):
            row.archived_at = at if archived else None
            self.before["archived"], self.after["archived"] = not archived, archived

    @property
    def is_in_principal(self) -> bool:
        """Tell whether it is of something that a `Principal` depends on."""
        return bool(self.after.keys() - _NOT_IN_PRINCIPAL)


def write_changes(
    row: PlanRow | OrganizationRow | ProjectRow | ApiKeyRow,
    limits: LimitsChange | None,
    rules: Rules,
    **fields: str | int | None,
) -> AuditedChange:
    """Write what is not None, and what the rules make."""
    change = AuditedChange(row)
    for name, value in fields.items():
        if value is not None:
            change.set(name, value)
    if limits is not None:
        change.set("limits", limits(row.limits))
    change.follow(rules)
    return change


def record(
    session: AsyncSession,
    organization: OrganizationId | None,
    actor: ApiKeyId,
    action: str,
    resource: str,
    *,
    at: int,
    details: dict[str, object] | None = None,
    before: dict[str, object] | None = None,
    change: AuditedChange | None = None,
) -> None:
    """Add to the audit log, in the transaction of the change itself, at `at` unix seconds. No secrets in `details`."""
    row = AuditRow(organization_id=organization, actor=actor, action=action, resource=resource, at=at)
    row.details = {**(details or {}), **(change.after if change else {})}
    row.before = {**(before or {}), **(change.before if change else {})}
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
    session: AsyncSession, organization: OrganizationId, change: AuditedChange, now_ms: int
) -> list[OutboxMessage]:
    """Bump the revision where the change is of something that a `Principal` depends on."""
    return [await bump_revision(session, organization, now_ms)] if change.is_in_principal else []


def _live_keys(organization: OrganizationId, now_s: int) -> tuple[ColumnElement[bool], ...]:
    unexpired = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now_s)
    return ApiKeyRow.organization_id == organization, ApiKeyRow.revoked_at.is_(None), unexpired


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
