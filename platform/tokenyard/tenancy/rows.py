"""Turns rows into views, and writes the audit row that belongs to every change."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Operator, Principal, Role, ScopedLimits
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, ProjectRow
from tokenyard.tenancy.views import ApiKey, AuditEntry, Credential, Organization, Project, read_limits


def organization_view(row: OrganizationRow) -> Organization:
    return Organization(
        id=OrganizationId(row.id),
        slug=row.slug,
        name=row.name,
        default_project=ProjectId(row.default_project),
        weight=row.weight,
        timezone=row.timezone,
        limits=read_limits(row.limits),
        created=row.created,
        archived=row.archived,
    )


def project_view(row: ProjectRow) -> Project:
    return Project(
        id=ProjectId(row.id),
        organization=OrganizationId(row.organization),
        name=row.name,
        limits=read_limits(row.limits),
        created=row.created,
        archived=row.archived,
    )


def key_view(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=ApiKeyId(row.id),
        organization=OrganizationId(row.organization) if row.organization is not None else None,
        project=ProjectId(row.project) if row.project is not None else None,
        role=Role(row.role),
        name=row.name,
        last4=row.last4,
        version=row.version,
        limits=read_limits(row.limits),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )


def credential_view(
    key: ApiKeyRow, project: ProjectRow | None, organization: OrganizationRow | None
) -> Credential | None:
    """Return who holds `key`, or None where it, its project or its organization has ended."""
    if key.revoked is not None:
        return None
    if key.role == Role.OPERATOR:
        return Credential(Operator(ApiKeyId(key.id)), key.expires)
    if project is None or organization is None or project.archived is not None or organization.archived is not None:
        return None
    limits = (
        ScopedLimits("key", key.id, read_limits(key.limits)),
        ScopedLimits("project", project.id, read_limits(project.limits)),
        ScopedLimits("organization", organization.id, read_limits(organization.limits)),
    )
    principal = Principal(
        organization=OrganizationId(organization.id),
        project=ProjectId(project.id),
        key=ApiKeyId(key.id),
        key_version=key.version,
        limits=limits,
        weight=organization.weight,
    )
    return Credential(principal, key.expires)


def audit_view(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        organization=OrganizationId(row.organization) if row.organization is not None else None,
        actor=row.actor,
        action=row.action,
        resource=row.resource,
        at=row.at,
        details=row.details,
    )


def record(
    session: AsyncSession,
    *,
    organization: OrganizationId | None,
    actor: str,
    action: str,
    resource: str,
    at: int,
    details: dict[str, Any] | None = None,
) -> None:
    """Add to the audit log, in the transaction of the change itself. `details` never hold secrets."""
    session.add(
        AuditRow(organization=organization, actor=actor, action=action, resource=resource, at=at, details=details or {})
    )
