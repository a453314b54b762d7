"""The API's shapes of tenancy. The lists of `/v1` hold exactly OpenAI's fields; what is read singly tells more."""

from typing import Annotated, Literal, Self

from fastapi import Query
from pydantic import BaseModel, Field

from tokenyard.core.ids import ApiKeyId, OrganizationId, PlanId, ProjectId
from tokenyard.core.principal import KeyScope
from tokenyard.tenancy.plans.rules import (
    Addresses,
    Expiry,
    KeyRules,
    LimitsField,
    LimitsView,
    ModelRules,
    OrganizationRules,
    RateLimitsField,
    StrictBody,
)
from tokenyard.tenancy.tables import AuditRow
from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL

MAX_EXPIRY_S = 31_536_000
Json = dict[str, object]

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Slug = Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
AuditCursor = Annotated[int | None, Query(ge=0, lt=2**63)]
ExpiresIn = Annotated[int, Field(ge=1, le=MAX_EXPIRY_S)]
PlanReference = Annotated[str, Field(max_length=96, pattern=NO_NUL)]


class NewOrganization(OrganizationRules):
    """`POST /admin/organizations`; `plan` is its id or name."""

    name: Name
    slug: Slug
    limits: LimitsView = LimitsView()
    plan: PlanReference | None = None


class OrganizationChanges(OrganizationRules):
    """`PATCH /admin/organizations/{organization}`; absent changes nothing, nor does null for name and archived."""

    name: Name | None = None
    limits: LimitsView | None = None
    archived: bool | None = None
    plan: PlanReference | None = None

    @property
    def names_plan(self) -> bool:
        """Tell whether the plan changes; null takes the organization off its plan."""
        return "plan" in self.model_fields_set


class NewProject(ModelRules):
    """`POST .../projects`."""

    name: Name
    limits: LimitsView = LimitsView()


class ProjectChanges(ModelRules):
    """`PATCH .../projects/{project}`; absent changes nothing, nor does null for name, limits and archived."""

    name: Name | None = None
    limits: LimitsView | None = None
    archived: bool | None = None


class NewOperatorKey(StrictBody):
    """`POST /admin/operator_keys`."""

    name: Name
    expires_in_seconds: ExpiresIn | None = None
    addresses: Addresses | None = None


class NewKey(KeyRules):
    """`POST .../api_keys` by a tenant."""

    name: Name
    expires_in_seconds: ExpiresIn | None = None
    limits: LimitsView = LimitsView()


class NewKeyOfProject(NewKey):
    """`POST .../api_keys` by the operator; without a project it is the default one."""

    project: Annotated[ProjectId, Field(max_length=96, pattern=NO_NUL)] | None = None


class ProjectKeyChanges(KeyRules):
    """`PATCH .../api_keys/{key}`; absent changes nothing, nor does null for name and limits.

    `expires_in_seconds` counts from now on, and null is never.
    """

    name: Name | None = None
    limits: LimitsView | None = None
    expires_in_seconds: ExpiresIn | None = None

    @property
    def expiry(self) -> Expiry | None:
        """Return when the key ends now, or None where that stays."""
        return Expiry(self.expires_in_seconds) if "expires_in_seconds" in self.model_fields_set else None


class RowView(Identified, from_attributes=True):
    """Made from a row, whose attributes have the same names. Times are unix seconds."""


class OrganizationView(RowView):
    """A tenant, with what is its own: what is null comes from its plan, or else there is no limit to it.

    Its prices go by its plan from `prices_from_ms` (unix milliseconds) on. `blocked_reason` says why it may use nothing
    that costs money; it is empty where it may.
    """

    id: OrganizationId
    object: Literal["organization"] = "organization"
    slug: str
    name: str
    default_project_id: ProjectId
    plan_id: PlanId | None
    prices_from_ms: int
    weight: int | None
    limits: LimitsField
    models: list[str] | None
    alert_percents: list[int] | None
    created_at: int
    archived_at: int | None
    blocked_reason: str


class ProjectView(RowView):
    """OpenAI's project."""

    id: ProjectId
    object: Literal["organization.project"] = "organization.project"
    name: str
    status: Literal["active", "archived"]
    created_at: int
    archived_at: int | None


class ProjectDetails(ProjectView):
    """A project with its limits and models."""

    limits: LimitsField
    models: list[str] | None
    model_limits: dict[str, RateLimitsField]


class KeyOwner(BaseModel):
    """Empty: keys belong to projects here, not to persons. OpenAI's clients expect the object."""


class ProjectKeyView(RowView):
    """OpenAI's API key of a project. When it was last used is not recorded."""

    id: ApiKeyId
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    owner: KeyOwner = KeyOwner()
    owner_project_access: Literal["active", "inactive"]
    created_at: int
    last_used_at: None = None


class ProjectKeyDetails(ProjectKeyView):
    """A key with its place, its limits, what it is for and its end."""

    organization_id: OrganizationId
    project_id: ProjectId
    limits: LimitsField
    models: list[str] | None
    model_limits: dict[str, RateLimitsField]
    scopes: list[KeyScope] | None
    addresses: list[str] | None
    expires_at: int | None
    revoked_at: int | None

    @property
    def is_free(self) -> bool:
        """Tell whether nothing is stated that others of its project are not held to."""
        stated = self.models, self.scopes, self.addresses, self.expires_at
        return self.limits == LimitsView() and not self.model_limits and stated == (None,) * len(stated)


class ProjectKeyCreated(ProjectKeyDetails):
    """The one answer that holds the key itself."""

    value: str


class ProjectKeyDeleted(Identified):
    """OpenAI's answer to the end of a project's key."""

    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: bool = True


class OperatorKeyView(RowView):
    """An operator's key, as OpenAI shows admin keys, and when it was revoked."""

    id: ApiKeyId
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    owner: KeyOwner = KeyOwner()
    addresses: list[str] | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: None = None


class OperatorKeyCreated(OperatorKeyView):
    """The one answer that holds the key itself."""

    value: str


class OperatorKeyDeleted(Identified):
    """OpenAI's answer to the end of an admin key."""

    object: Literal["organization.admin_api_key.deleted"] = "organization.admin_api_key.deleted"
    deleted: bool = True


class ActingKey(BaseModel):
    """The key that made a change."""

    id: str


class AuditActor(BaseModel):
    """Who made a change: always the holder of a key."""

    type: Literal["api_key"] = "api_key"
    api_key: ActingKey


class AuditEntry(Identified):
    """One change: who made it, to what, and when; `details` says what stands there now, `before` what stood there."""

    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    organization_id: OrganizationId | None
    actor: AuditActor
    resource_id: str
    details: Json
    before: Json

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        return cls(
            id=str(row.id),
            type=row.action,
            effective_at=row.at,
            organization_id=None if row.organization_id is None else OrganizationId(row.organization_id),
            actor=AuditActor(api_key=ActingKey(id=row.actor)),
            resource_id=row.resource,
            details=row.details,
            before=row.before,
        )
