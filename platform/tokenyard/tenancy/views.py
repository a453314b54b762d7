"""The API's shapes of tenancy. The lists of `/v1` hold exactly OpenAI's fields; what is read singly tells more."""

from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.limits import Limits
from tokenyard.core.money import InexactAmount, from_dollars, to_dollars
from tokenyard.core.principal import Role
from tokenyard.tenancy.keys import redacted
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow, OrganizationRow, ProjectRow
from tokenyard.web.pages import Identified

MAX_EXPIRY_S = 31_536_000
JsonObject = dict[str, object]


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from None
    return name


def _dollars(text: str) -> str:
    try:
        amount = from_dollars(text)
    except InexactAmount as error:
        raise ValueError(str(error)) from None
    if not 0 <= amount < 2**62:
        raise ValueError("must not be negative or too large")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Slug = Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Timezone = Annotated[str, Field(max_length=64), AfterValidator(_known_timezone)]
Weight = Annotated[int, Field(ge=1, le=1000)]
ExpiresIn = Annotated[int, Field(ge=1, le=MAX_EXPIRY_S)]
_Limit = Annotated[int, Field(ge=0, lt=2**53)]


class _Body(BaseModel):
    """Unknown fields are refused, so that a caller sets nothing that is not its own to set."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LimitsView(_Body):
    """Limits as the API takes and shows them; null is without limit. The spend is dollars, such as `"25.00"`."""

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    requests_per_day: _Limit | None = None
    tokens_per_day: _Limit | None = None
    concurrency: _Limit | None = None
    monthly_spend_dollars: Annotated[str, AfterValidator(_dollars)] | None = None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        counts = msgspec.structs.asdict(limits)
        spend = counts.pop("monthly_spend")
        return cls(**counts, monthly_spend_dollars=None if spend is None else to_dollars(spend))

    def applied_to(self, limits: Limits) -> Limits:
        """Return `limits` with the fields that a body names; the others stay."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "monthly_spend_dollars" in changes:
            dollars = changes.pop("monthly_spend_dollars")
            changes["monthly_spend"] = None if dollars is None else from_dollars(dollars)
        return msgspec.structs.replace(limits, **changes)


class NewOrganization(_Body):
    """`POST /admin/organizations`."""

    name: Name
    slug: Slug
    weight: Weight = 1
    timezone: Timezone = "UTC"
    limits: LimitsView = LimitsView()


class OrganizationChanges(_Body):
    """`PATCH /admin/organizations/{organization}`; null and absent change nothing."""

    name: Name | None = None
    weight: Weight | None = None
    timezone: Timezone | None = None
    limits: LimitsView | None = None
    archived: bool | None = None


class NewProject(_Body):
    """`POST .../projects`."""

    name: Name
    limits: LimitsView = LimitsView()


class ProjectChanges(_Body):
    """`PATCH .../projects/{project}`; null and absent change nothing."""

    name: Name | None = None
    limits: LimitsView | None = None
    archived: bool | None = None


class NewKey(_Body):
    """`POST .../api_keys` by a tenant, and `POST /admin/operator_keys`."""

    name: Name
    expires_in_seconds: ExpiresIn | None = None


class NewLimitedKey(NewKey):
    """`POST .../api_keys` by the operator; without a project it is the default one."""

    project: ProjectId | None = None
    limits: LimitsView = LimitsView()


class OrganizationView(Identified):
    """A tenant. Times here and below are unix seconds."""

    id: OrganizationId
    object: Literal["organization"] = "organization"
    slug: str
    name: str
    default_project_id: ProjectId
    weight: int
    timezone: str
    limits: LimitsView
    created_at: int
    archived_at: int | None

    @classmethod
    def of(cls, row: OrganizationRow) -> Self:
        return cls(
            id=OrganizationId(row.id),
            slug=row.slug,
            name=row.name,
            default_project_id=ProjectId(row.default_project),
            weight=row.weight,
            timezone=row.timezone,
            limits=LimitsView.of(row.limits),
            created_at=row.created,
            archived_at=row.archived,
        )


class ProjectView(Identified):
    """OpenAI's project."""

    id: ProjectId
    object: Literal["organization.project"] = "organization.project"
    name: str
    status: Literal["active", "archived"]
    created_at: int
    archived_at: int | None


class ProjectDetails(ProjectView):
    """A project with its limits."""

    limits: LimitsView

    @classmethod
    def of(cls, row: ProjectRow) -> Self:
        return cls(
            id=ProjectId(row.id),
            name=row.name,
            status="active" if row.archived is None else "archived",
            limits=LimitsView.of(row.limits),
            created_at=row.created,
            archived_at=row.archived,
        )


class KeyOwner(BaseModel):
    """Empty: keys belong to projects here, not to persons. OpenAI's clients expect the object."""


class ProjectKeyView(Identified):
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
    """A key with its place, its limits and its end."""

    organization_id: OrganizationId
    project_id: ProjectId
    limits: LimitsView
    expires_at: int | None
    revoked_at: int | None

    @classmethod
    def of(cls, row: ApiKeyRow) -> Self:
        return cls(
            id=ApiKeyId(row.id),
            name=row.name,
            redacted_value=redacted(Role.TENANT, row.last4),
            owner_project_access="active" if row.revoked is None else "inactive",
            organization_id=OrganizationId(row.organization or ""),
            project_id=ProjectId(row.project or ""),
            limits=LimitsView.of(row.limits),
            created_at=row.created,
            expires_at=row.expires,
            revoked_at=row.revoked,
        )


class ProjectKeyCreated(ProjectKeyDetails):
    """The one answer that holds the key itself."""

    value: str


class ProjectKeyDeleted(Identified):
    """OpenAI's answer to the end of a project's key."""

    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: bool = True


class OperatorKeyView(Identified):
    """An operator's key, as OpenAI shows admin keys, and when it was revoked."""

    id: ApiKeyId
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    owner: KeyOwner = KeyOwner()
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: None = None

    @classmethod
    def of(cls, row: ApiKeyRow) -> Self:
        return cls(
            id=ApiKeyId(row.id),
            name=row.name,
            redacted_value=redacted(Role.OPERATOR, row.last4),
            created_at=row.created,
            expires_at=row.expires,
            revoked_at=row.revoked,
        )


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
    """One change: who made it, to what, and when."""

    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    organization_id: OrganizationId | None
    actor: AuditActor
    resource_id: str
    details: JsonObject

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        return cls(
            id=str(row.id),
            type=row.action,
            effective_at=row.at,
            organization_id=None if row.organization is None else OrganizationId(row.organization),
            actor=AuditActor(api_key=ActingKey(id=row.actor)),
            resource_id=row.resource,
            details=row.details,
        )
