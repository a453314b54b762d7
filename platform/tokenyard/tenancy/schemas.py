"""Bodies of tenancy's routes. Unknown fields are refused, so nobody sets what is not theirs to set."""

from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tokenyard.core.money import InexactAmount, from_dollars, to_dollars
from tokenyard.core.principal import Limits
from tokenyard.tenancy.views import ApiKey, AuditEntry, Organization, Project

MAX_EXPIRY_S = 31_536_000


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
    model_config = ConfigDict(extra="forbid", strict=True)


class LimitsBody(_Body):
    """Limits as the API shows them; null is without limit. The spend is dollars, such as `"25.00"`."""

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    requests_per_day: _Limit | None = None
    tokens_per_day: _Limit | None = None
    concurrency: _Limit | None = None
    monthly_spend_dollars: Annotated[str, AfterValidator(_dollars)] | None = None

    def applied_to(self, limits: Limits) -> Limits:
        """Return `limits` with the fields that the body names; the others stay."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "monthly_spend_dollars" in changes:
            dollars = changes.pop("monthly_spend_dollars")
            changes["monthly_spend"] = None if dollars is None else from_dollars(dollars)
        return msgspec.structs.replace(limits, **changes)


class NewOrganizationBody(_Body):
    """`POST /admin/organizations`."""

    name: Name
    slug: Slug
    weight: Weight = 1
    timezone: Timezone = "UTC"
    limits: LimitsBody = LimitsBody()


class OrganizationChanges(_Body):
    """`PATCH /admin/organizations/{organization}`."""

    name: Name | None = None
    weight: Weight | None = None
    timezone: Timezone | None = None
    limits: LimitsBody | None = None
    archived: bool | None = None


class NewProjectBody(_Body):
    """`POST .../projects`."""

    name: Name
    limits: LimitsBody = LimitsBody()


class ProjectChanges(_Body):
    """`PATCH .../projects/{project}`."""

    name: Name | None = None
    limits: LimitsBody | None = None
    archived: bool | None = None


class NewKeyBody(_Body):
    """`POST .../api_keys` by the operator; without a project it is the default one."""

    name: Name
    project: str | None = None
    expires_in_seconds: ExpiresIn | None = None
    limits: LimitsBody = LimitsBody()


class NewOwnKeyBody(_Body):
    """`POST .../api_keys` by a tenant, and `POST /admin/operator_keys`."""

    name: Name
    expires_in_seconds: ExpiresIn | None = None


def shown_limits(limits: Limits) -> dict[str, Any]:
    """Return limits as the API shows them."""
    shown: dict[str, Any] = msgspec.structs.asdict(limits)
    spend = shown.pop("monthly_spend")
    shown["monthly_spend_dollars"] = None if spend is None else to_dollars(spend)
    return shown


def shown_organization(organization: Organization) -> dict[str, Any]:
    """Return an organization as the API shows it."""
    return {
        "id": organization.id,
        "object": "organization",
        "slug": organization.slug,
        "name": organization.name,
        "default_project_id": organization.default_project,
        "weight": organization.weight,
        "timezone": organization.timezone,
        "limits": shown_limits(organization.limits),
        "created_at": organization.created,
        "archived_at": organization.archived,
    }


def shown_project(project: Project) -> dict[str, Any]:
    """Return a project as OpenAI's API shows it, with its limits."""
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "status": "active" if project.archived is None else "archived",
        "limits": shown_limits(project.limits),
        "created_at": project.created,
        "archived_at": project.archived,
    }


def shown_audit(entry: AuditEntry) -> dict[str, Any]:
    """Return a change as the API shows it."""
    return {
        "id": str(entry.id),
        "object": "organization.audit_log",
        "type": entry.action,
        "effective_at": entry.at,
        "organization_id": entry.organization,
        "actor": {"type": "api_key", "api_key": {"id": entry.actor}},
        "resource_id": entry.resource,
        "details": entry.details,
    }


def shown_key(key: ApiKey, secret: str | None = None) -> dict[str, Any]:
    """Return a key as OpenAI's API shows it; `value` only where it was just made."""
    kind = "organization.admin_api_key" if key.organization is None else "organization.project.api_key"
    shown: dict[str, Any] = {"id": key.id, "object": kind, "name": key.name}
    if secret is not None:
        shown["value"] = secret
    shown["redacted_value"] = key.redacted_value
    # Keys belong to projects here, not to persons; clients of OpenAI's expect the field.
    shown["owner"] = {"type": None, "user": None, "service_account": None}
    if key.organization is not None:
        shown |= {"organization_id": key.organization, "project_id": key.project, "limits": shown_limits(key.limits)}
        shown["owner_project_access"] = "active" if key.revoked is None else "inactive"
    return shown | {
        "created_at": key.created,
        "expires_at": key.expires,
        "revoked_at": key.revoked,
        "last_used_at": None,
    }
