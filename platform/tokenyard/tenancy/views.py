"""What tenancy's stores return: plain values, never rows."""

from typing import Any

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Limits, Operator, Principal, Role
from tokenyard.tenancy.keys import redacted


class Organization(msgspec.Struct, frozen=True):
    """A tenant. Times are unix seconds."""

    id: OrganizationId
    slug: str
    name: str
    default_project: ProjectId
    weight: int
    timezone: str
    limits: Limits
    created: int
    archived: int | None = None


class Project(msgspec.Struct, frozen=True):
    """A part of an organization."""

    id: ProjectId
    organization: OrganizationId
    name: str
    limits: Limits
    created: int
    archived: int | None = None


class ApiKey(msgspec.Struct, frozen=True):
    """What may be shown of a key. An operator's key has neither organization nor project."""

    id: ApiKeyId
    organization: OrganizationId | None
    project: ProjectId | None
    role: Role
    name: str
    last4: str
    version: int
    limits: Limits
    created: int
    expires: int | None = None
    revoked: int | None = None

    @property
    def redacted_value(self) -> str:
        return redacted(self.role, self.last4)


class AuditEntry(msgspec.Struct, frozen=True):
    """One change: who made it (`actor` is a key), to what, and when (unix seconds)."""

    id: int
    organization: OrganizationId | None
    actor: str
    action: str
    resource: str
    at: int
    details: dict[str, Any]


class Credential(msgspec.Struct, frozen=True):
    """Who holds a live key, and until when (unix seconds)."""

    holder: Principal | Operator
    expires: int | None = None


class KeyVersion(msgspec.Struct, frozen=True):
    """The version that a key's holder must know; an older one means that the key is dead."""

    organization: OrganizationId
    key: ApiKeyId
    version: int


def read_limits(stored: dict[str, Any]) -> Limits:
    """Read limits from their column."""
    return msgspec.convert(stored, Limits)


def write_limits(limits: Limits) -> dict[str, Any]:
    """Return limits as they stand in their column: only those that are set."""
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}
