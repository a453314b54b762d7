"""The API's shapes of tenancy. The lists of `/v1` hold exactly OpenAI's fields; what is read singly tells more."""

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

import msgspec
from fastapi import Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId, PlanId, ProjectId
from tokenyard.core.money import InexactAmount, from_dollars, to_dollars
from tokenyard.core.principal import KeyScope, Limits
from tokenyard.tenancy.tables import AuditRow
from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL

MAX_EXPIRY_S = 31_536_000
MAX_PATTERNS = 50  # each that names a model has windows of its own, which a request must pass
MAX_NETWORKS = 50
MAX_MODEL_LENGTH = 200
MODEL_PATTERN = r"^([A-Za-z0-9._:/-]+\*?|\*)$"
"""A model's name, or the beginning of names and a `*`."""
Rules = Mapping[str, Callable[[Any], object]]
"""By the name of a row's attribute: what makes the new value of the old one."""
Json = dict[str, object]


def _dollars(text: str) -> str:
    try:
        amount = from_dollars(text)
    except InexactAmount as error:
        raise ValueError(str(error)) from None
    if not 0 <= amount < 2**62:
        raise ValueError("must not be negative or too large")
    return text


def _network(text: str) -> str:
    network = ip_network(text)
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise ValueError("an IPv4 address must be written as one")
    return str(network)


def _in_order(percents: list[int]) -> list[int]:
    return sorted(set(percents))


def stated(body: BaseModel, *names: str) -> dict[str, Callable[[object], object]]:
    """Return those of the fields that a body names, as rules: they replace whatever stood there."""

    def always(value: object) -> Callable[[object], object]:
        return lambda _old: value

    return {name: always(getattr(body, name)) for name in names if name in body.model_fields_set}


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Slug = Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Weight = Annotated[int, Field(ge=1, le=1000)]
AuditCursor = Annotated[int | None, Query(ge=0, lt=2**63)]
ExpiresIn = Annotated[int, Field(ge=1, le=MAX_EXPIRY_S)]
PlanReference = Annotated[str, Field(max_length=96, pattern=NO_NUL)]
ModelPattern = Annotated[str, Field(max_length=MAX_MODEL_LENGTH, pattern=MODEL_PATTERN)]
Models = Annotated[list[ModelPattern], Field(max_length=MAX_PATTERNS)]
Addresses = Annotated[list[Annotated[str, AfterValidator(_network)]], Field(min_length=1, max_length=MAX_NETWORKS)]
Percents = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=10), AfterValidator(_in_order)]
_Limit = Annotated[int, Field(ge=0, lt=2**53)]


class StrictBody(BaseModel, extra="forbid", strict=True):
    """Unknown fields are refused, so that a caller sets nothing that is not its own to set."""


class RateLimitsView(StrictBody):
    """The limits that a model may have of its own; null is without limit."""

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    requests_per_day: _Limit | None = None
    tokens_per_day: _Limit | None = None
    concurrency: _Limit | None = None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        counts = msgspec.structs.asdict(limits)
        del counts["monthly_spend"]
        return cls(**counts)

    def applied_to(self, limits: Limits) -> Limits:
        """Return `limits` with the fields that a body names; the others stay."""
        return msgspec.structs.replace(limits, **self._changes())

    def _changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class LimitsView(RateLimitsView):
    """Limits as the API takes and shows them; null is without limit. The spend is dollars, such as `"25.00"`."""

    monthly_spend_dollars: Annotated[str, AfterValidator(_dollars)] | None = None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        shown = super().of(limits)
        spend = limits.monthly_spend
        return shown.model_copy(update={"monthly_spend_dollars": None if spend is None else to_dollars(spend)})

    def _changes(self) -> dict[str, Any]:
        changes = super()._changes()
        if "monthly_spend_dollars" in changes:
            del changes["monthly_spend_dollars"]
            dollars = self.monthly_spend_dollars
            changes["monthly_spend"] = None if dollars is None else from_dollars(dollars)
        return changes


def _limits_view(value: object) -> object:
    return LimitsView.of(value) if isinstance(value, Limits) else value


def _rate_limits_view(value: object) -> object:
    return RateLimitsView.of(value) if isinstance(value, Limits) else value


LimitsField = Annotated[LimitsView, BeforeValidator(_limits_view)]
RateLimitsField = Annotated[RateLimitsView, BeforeValidator(_rate_limits_view)]


class OrganizationRules(StrictBody):
    """What an organization states in place of its plan; null leaves it to the plan, and percents to the usual ones."""

    weight: Weight | None = None
    models: Models | None = None
    alert_percents: Percents | None = None

    def rules(self) -> Rules:
        """Return what the body names, also where it is null."""
        return stated(self, "weight", "models", "alert_percents")


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


class ModelRules(StrictBody):
    """Which models a project or a key may use (null: all), and what limits some models have there.

    Models go by their names, or by the beginning of them and a `*`. A model whose limits are null has none any more.
    """

    models: Models | None = None
    model_limits: Annotated[dict[ModelPattern, RateLimitsView | None], Field(max_length=MAX_PATTERNS)] | None = None

    def rules(self) -> Rules:
        """Return what the body names, also where it is null."""
        found = stated(self, "models")
        return found if self.model_limits is None else {**found, "model_limits": self._applied_to}

    def _applied_to(self, old: Mapping[str, Limits]) -> dict[str, Limits]:
        limits = dict(old)
        for models, change in (self.model_limits or {}).items():
            changed = Limits() if change is None else change.applied_to(limits.pop(models, Limits()))
            limits.pop(models, None)
            if changed != Limits():
                limits[models] = changed
        if len(limits) > MAX_PATTERNS:
            raise InvalidRequest(f"Limits of at most {MAX_PATTERNS} models can be stated.", param="model_limits")
        return limits


class NewProject(ModelRules):
    """`POST .../projects`."""

    name: Name
    limits: LimitsView = LimitsView()


class ProjectChanges(ModelRules):
    """`PATCH .../projects/{project}`; absent changes nothing, nor does null for name, limits and archived."""

    name: Name | None = None
    limits: LimitsView | None = None
    archived: bool | None = None


class KeyRules(ModelRules):
    """What a key is for, and the addresses and networks from which it may be used; null is all, and everywhere."""

    scopes: Annotated[list[Annotated[KeyScope, Field(strict=False)]], Field(min_length=1, max_length=10)] | None = None
    addresses: Addresses | None = None

    def rules(self) -> Rules:
        return {**super().rules(), **stated(self, "scopes", "addresses")}


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
    """`PATCH .../api_keys/{key}`; absent changes nothing, nor does null for name and limits."""

    name: Name | None = None
    limits: LimitsView | None = None


class RowView(Identified, from_attributes=True):
    """Made from a row, whose attributes have the same names. Times are unix seconds."""


class OrganizationView(RowView):
    """A tenant, with what is its own: what is null comes from its plan, or else there is no limit to it."""

    id: OrganizationId
    object: Literal["organization"] = "organization"
    slug: str
    name: str
    default_project_id: ProjectId
    plan_id: PlanId | None
    weight: int | None
    limits: LimitsField
    models: list[str] | None
    alert_percents: list[int] | None
    created_at: int
    archived_at: int | None


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
