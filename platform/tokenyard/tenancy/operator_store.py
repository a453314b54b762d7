"""Tenancy across organizations: for authentication, operator routes and worker loops only."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, new_organization_id, new_project_id
from tokenyard.core.principal import Limits, Role
from tokenyard.storage.database import Database
from tokenyard.tenancy.rows import audit_view, credential_view, key_view, organization_view, record
from tokenyard.tenancy.store import end_keys
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, ProjectRow
from tokenyard.tenancy.views import ApiKey, AuditEntry, Credential, KeyVersion, Organization, write_limits

DEFAULT_PROJECT = "Default project"


class OrganizationNames:
    """What organizations are called, for dashboards and for the names of models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def names(self) -> dict[OrganizationId, tuple[str, str]]:
        """Return name and slug of every organization, also of archived ones."""
        async with self._database.reading() as session:
            rows = await session.execute(select(OrganizationRow.id, OrganizationRow.name, OrganizationRow.slug))
            return {OrganizationId(row.id): (row.name, row.slug) for row in rows}

    async def slug(self, organization: OrganizationId) -> str:
        """Return the slug that stands in the names of the organization's models.

        Raises:
            NotFound: no such organization.
        """
        async with self._database.reading() as session:
            slug = await session.scalar(select(OrganizationRow.slug).where(OrganizationRow.id == organization))
        if slug is None:
            raise NotFound(f"No such organization: `{organization}`.")
        return slug

    async def timezone(self, organization: OrganizationId) -> str:
        """Return the IANA time zone that the organization's invoices use.

        Raises:
            NotFound: no such organization.
        """
        async with self._database.reading() as session:
            zone = await session.scalar(select(OrganizationRow.timezone).where(OrganizationRow.id == organization))
        if zone is None:
            raise NotFound(f"No such organization: `{organization}`.")
        return zone


class TenancyOperatorStore:
    """Organizations, operators' keys, and what worker loops look for."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create_organization(
        self, *, name: str, slug: str, weight: int, timezone: str, limits: Limits, actor: ApiKeyId
    ) -> Organization:
        """Create an organization with its default project.

        Raises:
            Conflict: the slug was given before.
        """
        now = self._clock.now_ms() // 1000
        row = OrganizationRow(
            id=new_organization_id(),
            slug=slug,
            name=name,
            default_project=new_project_id(),
            weight=weight,
            timezone=timezone,
            limits=write_limits(limits),
            created=now,
        )
        try:
            async with self._database.transaction() as session:
                session.add(row)
                await session.flush()
                session.add(
                    ProjectRow(
                        id=row.default_project, organization=row.id, name=DEFAULT_PROJECT, limits={}, created=now
                    )
                )
                record(
                    session,
                    organization=OrganizationId(row.id),
                    actor=actor,
                    action="organization.created",
                    resource=row.id,
                    at=now,
                    details={"name": name, "slug": slug},
                )
        except IntegrityError as error:
            raise Conflict(f"The slug `{slug}` is taken; slugs are never given twice.", param="slug") from error
        return organization_view(row)

    async def organizations(self, *, after: str | None, limit: int) -> list[Organization]:
        """Return organizations in the order of their creation, beginning behind `after` (an id or slug).

        Raises:
            NotFound: there is no organization `after`.
        """
        query = select(OrganizationRow)
        async with self._database.reading() as session:
            if after is not None:
                cursor = await _organization(session, after)
                query = query.where(
                    or_(
                        OrganizationRow.created > cursor.created,
                        and_(OrganizationRow.created == cursor.created, OrganizationRow.id > cursor.id),
                    )
                )
            rows = await session.scalars(query.order_by(OrganizationRow.created, OrganizationRow.id).limit(limit))
            return [organization_view(row) for row in rows]

    async def organization(self, reference: str) -> Organization:
        """Return the organization with this id or slug.

        Raises:
            NotFound: there is none.
        """
        async with self._database.reading() as session:
            return organization_view(await _organization(session, reference))

    async def change_organization(
        self,
        reference: str,
        *,
        name: str | None,
        weight: int | None,
        timezone: str | None,
        limits: Limits | None,
        archived: bool | None,
        actor: ApiKeyId,
    ) -> tuple[Organization, list[KeyVersion]]:
        """Change what is not None; return the organization and the versions of the keys that this ended.

        Raises:
            NotFound: there is no organization with this id or slug.
        """
        now_ms = self._clock.now_ms()
        ended: list[KeyVersion] = []
        changes: dict[str, object] = {"name": name, "weight": weight, "timezone": timezone}
        changes["limits"] = None if limits is None else write_limits(limits)
        changes = {field: value for field, value in changes.items() if value is not None}
        async with self._database.transaction() as session:
            row = await _organization(session, reference)
            for field, value in changes.items():
                setattr(row, field, value)
            if archived is not None and archived != (row.archived is not None):
                changes["archived"] = archived
                row.archived = now_ms // 1000 if archived else None
                if archived:
                    ended = await end_keys(session, OrganizationId(row.id), now_ms, true())
            record(
                session,
                organization=OrganizationId(row.id),
                actor=actor,
                action="organization.archived" if ended or archived else "organization.updated",
                resource=row.id,
                at=now_ms // 1000,
                details=changes,
            )
            return organization_view(row), ended

    async def add_operator_key(self, row: ApiKeyRow, *, actor: ApiKeyId) -> ApiKey:
        """Store a new operator's key."""
        async with self._database.transaction() as session:
            session.add(row)
            record(
                session,
                organization=None,
                actor=actor,
                action="operator_key.created",
                resource=row.id,
                at=row.created,
                details={"name": row.name},
            )
        return key_view(row)

    async def operator_keys(self) -> list[ApiKey]:
        """Return the operators' keys that are neither revoked nor expired, oldest first."""
        query = select(ApiKeyRow).where(self._live_operator_key()).order_by(ApiKeyRow.created, ApiKeyRow.id)
        async with self._database.reading() as session:
            return [key_view(row) for row in await session.scalars(query)]

    async def revoke_operator_key(self, key: str, *, actor: ApiKeyId) -> ApiKey:
        """End an operator's key for ever; doing it again changes nothing.

        Raises:
            NotFound: no operator's key has this id.
            Conflict: it is the last one, and nobody could make another.
        """
        now = self._clock.now_ms() // 1000
        async with self._database.transaction() as session:
            row = await session.scalar(
                select(ApiKeyRow).where(ApiKeyRow.role == Role.OPERATOR, ApiKeyRow.id == key).with_for_update()
            )
            if row is None:
                raise NotFound(f"No such operator key: `{key}`.")
            if row.revoked is None:
                others = and_(self._live_operator_key(), ApiKeyRow.id != row.id)
                if not await session.scalar(select(func.count()).where(others)):
                    raise Conflict("This is the last operator key. Create another one first.")
                row.revoked = now
                row.version += 1
                record(session, organization=None, actor=actor, action="operator_key.deleted", resource=row.id, at=now)
            return key_view(row)

    async def audit_log(self, *, organization: str | None, before: int | None, limit: int) -> list[AuditEntry]:
        """Return changes, newest first, older than the one with the id `before`; `organization` is an id or slug.

        Raises:
            NotFound: no such organization.
        """
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        async with self._database.reading() as session:
            if organization is not None:
                query = query.where(AuditRow.organization == (await _organization(session, organization)).id)
            if before is not None:
                query = query.where(AuditRow.id < before)
            return [audit_view(row) for row in await session.scalars(query)]

    def _live_operator_key(self) -> ColumnElement[bool]:
        unexpired = or_(ApiKeyRow.expires.is_(None), ApiKeyRow.expires > self._clock.now_ms() // 1000)
        return and_(ApiKeyRow.role == Role.OPERATOR, ApiKeyRow.revoked.is_(None), unexpired)

    async def versions_changed_since(self, changed_ms: int) -> list[KeyVersion]:
        """Return the versions of tenants' keys that were created, revoked or archived since then."""
        async with self._database.reading() as session:
            rows = await session.execute(
                select(ApiKeyRow.organization, ApiKeyRow.id, ApiKeyRow.version).where(
                    ApiKeyRow.changed_ms >= changed_ms, ApiKeyRow.role == Role.TENANT
                )
            )
            return [KeyVersion(OrganizationId(row.organization), ApiKeyId(row.id), row.version) for row in rows]

    async def credential(self, hashes: Sequence[str]) -> Credential | None:
        """Return who holds the key with one of these hashes; None where it is unknown or has ended."""
        query = (
            select(ApiKeyRow, ProjectRow, OrganizationRow)
            .outerjoin(ProjectRow, ProjectRow.id == ApiKeyRow.project)
            .outerjoin(OrganizationRow, OrganizationRow.id == ApiKeyRow.organization)
            .where(ApiKeyRow.hash.in_(hashes))
        )
        async with self._database.reading() as session:
            found = (await session.execute(query)).first()
            return None if found is None else credential_view(*found)

    async def unannounced(self, limit: int) -> list[OrganizationId]:
        """Return organizations that the other slices may not have heard of, oldest first."""
        query = select(OrganizationRow.id).where(OrganizationRow.announced.is_(None))
        async with self._database.reading() as session:
            rows = await session.scalars(query.order_by(OrganizationRow.created).limit(limit))
            return [OrganizationId(row) for row in rows]

    async def announced(self, organization: OrganizationId) -> None:
        """Note that the other slices have heard of it."""
        async with self._database.transaction() as session:
            row = await _organization(session, organization)
            row.announced = self._clock.now_ms() // 1000


async def _organization(session: AsyncSession, reference: str) -> OrganizationRow:
    row = await session.scalar(
        select(OrganizationRow).where(or_(OrganizationRow.id == reference, OrganizationRow.slug == reference))
    )
    if row is None:
        raise NotFound(f"No such organization: `{reference}`.")
    return row
