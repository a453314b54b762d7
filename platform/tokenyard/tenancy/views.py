"""The API's shapes of tenancy. The lists of `/v1` hold exactly OpenAI's fields; what is read singly tells more."""

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.money import InexactAmount, from_dollars, to_dollars
from tokenyard.core.principal import Limits
from tokenyard.tenancy.tables import AuditRow
from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL

MAX_EXPIRY_S = 31_536_000
Json = dict[str, object]


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
Weight = Annotated[int, Field(ge=1, le=1000)]
ExpiresIn = Annotated[int, Field(ge=1, le=MAX_EXPIRY_S)]
_Limit = Annotated[int, Field(ge=0, lt=2**53)]


class _Body(BaseModel, extra="forbid", strict=True):
    """Unknown fields are refused, so that a caller sets nothing that is not its own to set."""


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


def _limits_view(value: object) -> object:
    return LimitsView.of(value) if isinstance(value, Limits) else value


LimitsField = Annotated[LimitsView, BeforeValidator(_limits_view)]


class NewOrganization(_Body):
    """`POST /admin/organizations`."""

    name: Name
    slug: Slug
    weight: Weight = 1
    limits: LimitsView = LimitsView()


class OrganizationChanges(_Body):
    """`PATCH /admin/organizations/{organization}`; null and absent change nothing."""

    name: Name | None = None
    weight: Weight | None = None
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

    project: Annotated[ProjectId, Field(max_length=96, pattern=NO_NUL)] | None = None
    limits: LimitsView = LimitsView()


class ProjectKeyChanges(_Body):
    """`PATCH .../api_keys/{key}`; null and absent change nothing."""

    name: Name | None = None
    limits: LimitsView | None = None


class _View(Identified, from_attributes=True):
    """Made from a row, whose attributes have the same names. Times are unix seconds."""


class OrganizationView(_View):
    """A tenant."""

    id: OrganizationId
    object: Literal["organization"] = "organization"
    slug: str
    name: str
    default_project_id: ProjectId
    weight: int
    limits: LimitsField
    created_at: int
    archived_at: int | None


class ProjectView(_View):
    """OpenAI's project."""

    id: ProjectId
    object: Literal["organization.project"] = "organization.project"
    name: str
    status: Literal["active", "archived"]
    created_at: int
    archived_at: int | None


class ProjectDetails(ProjectView):
    """A project with its limits."""

    limits: LimitsField


class KeyOwner(BaseModel):
    """Empty: keys belong to projects here, not to persons. OpenAI's clients expect the object."""


class ProjectKeyView(_View):
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
    limits: LimitsField
    expires_at: int | None
    revoked_at: int | None


class ProjectKeyCreated(ProjectKeyDetails):
    """The one answer that holds the key itself."""

    value: str


class ProjectKeyDeleted(Identified):
    """OpenAI's answer to the end of a project's key."""

    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: bool = True


class OperatorKeyView(_View):
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
    details: Json

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
        )
