"""Tables of tenancy: plans, organizations, projects, API keys and the audit log.

Attributes are called as in the API.
"""

from typing import Annotated

import msgspec
from sqlalchemy import JSON, BigInteger, Dialect, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from tokenyard.core.money import MULTIPLIER_LENGTH
from tokenyard.core.principal import Limits, LocalShare, Role
from tokenyard.storage.columns import Count, Id, Json, Nano, UnixMs, UnixSeconds
from tokenyard.storage.database import Base
from tokenyard.tenancy.keys import redacted


def stored_limits(limits: Limits) -> dict[str, int]:
    """Return limits as SQL keeps them: only those that are set."""
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}


class LimitsColumn(TypeDecorator[Limits]):
    impl = JSON().with_variant(JSONB(), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Limits | None, dialect: Dialect) -> dict[str, int] | None:
        return None if value is None else stored_limits(value)

    def process_result_value(self, value: object, dialect: Dialect) -> Limits | None:
        return None if value is None else msgspec.convert(value, Limits)


class LocalShareColumn(TypeDecorator[LocalShare]):
    impl = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: LocalShare | None, dialect: Dialect) -> dict[str, int] | None:
        return None if value is None else msgspec.structs.asdict(value)

    def process_result_value(self, value: object, dialect: Dialect) -> LocalShare | None:
        return None if value is None else msgspec.convert(value, LocalShare)


class ModelLimitsColumn(TypeDecorator[dict[str, Limits]]):
    impl = JSON().with_variant(JSONB(), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: dict[str, Limits] | None, dialect: Dialect) -> dict[str, object] | None:
        return None if value is None else {models: stored_limits(limits) for models, limits in value.items()}

    def process_result_value(self, value: object, dialect: Dialect) -> dict[str, Limits] | None:
        return None if value is None else msgspec.convert(value, dict[str, Limits])


def as_stored(value: object) -> object:
    """Return a row's value as JSON holds it."""
    if isinstance(value, Limits):
        return stored_limits(value)
    if isinstance(value, LocalShare):
        return msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {name: as_stored(each) for name, each in value.items()}
    return value


StoredLimits = Annotated[Limits, mapped_column(LimitsColumn)]
StoredModelLimits = Annotated[dict[str, Limits], mapped_column(ModelLimitsColumn, default=dict)]
"""Limits by the pattern of the models that they hold for."""
Texts = Annotated[
    list[str], mapped_column(JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"))
]
Numbers = Annotated[
    list[int], mapped_column(JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"))
]


class PlanRow(Base):
    """What organizations on it have where they state nothing of their own."""

    __tablename__ = "tenancy_plans"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    weight: Mapped[int]
    limits: Mapped[StoredLimits]
    # Patterns; None is every model.
    models: Mapped[Texts | None]
    # None: nothing is served while Redis is away.
    local_share: Mapped[Annotated[LocalShare, mapped_column(LocalShareColumn)] | None]
    # As stated last: in force from `prices_from_ms` on. `PlanPriceRow` tells what was before.
    price_multiplier: Mapped[str] = mapped_column(String(MULTIPLIER_LENGTH))
    # `TierTerms` by the tier's name.
    service_tiers: Mapped[Json]
    # So many of an organization's fine-tuned models stay in the memory of replicas.
    pinned_adapters: Mapped[int] = mapped_column(default=0)
    # `TrainingLimits`: those that are set.
    training: Mapped[Json] = mapped_column(default=dict)
    # Both of a whole month; as stated last, as the multiplier is.
    monthly_fee: Mapped[Nano] = mapped_column(default=0)
    monthly_minimum: Mapped[Nano] = mapped_column(default=0)
    prices_from_ms: Mapped[UnixMs]
    created_at: Mapped[UnixSeconds] = mapped_column("created")


class PlanPriceRow(Base):
    """What a plan multiplies prices by, and asks for a month, from `from_ms` until the next row's.

    Never updated, never deleted.

    `tiers` are the multipliers of the service tiers that have their own, by name.
    """

    __tablename__ = "tenancy_plan_prices"

    plan: Mapped[Id] = mapped_column(primary_key=True)
    from_ms: Mapped[UnixMs] = mapped_column(primary_key=True, autoincrement=False)
    multiplier: Mapped[str] = mapped_column(String(MULTIPLIER_LENGTH))
    tiers: Mapped[Json]
    monthly_fee: Mapped[Nano] = mapped_column(default=0)
    monthly_minimum: Mapped[Nano] = mapped_column(default=0)
    published_at_ms: Mapped[UnixMs]


class OrganizationPlanRow(Base):
    """By which plan an organization's prices go from `from_ms` on; None is by none. Never updated, never deleted.

    While it is archived the plan asks no fee.
    """

    __tablename__ = "tenancy_organization_plans"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    from_ms: Mapped[UnixMs] = mapped_column(primary_key=True, autoincrement=False)
    plan: Mapped[Id | None]
    archived: Mapped[bool] = mapped_column(default=False)
    published_at_ms: Mapped[UnixMs]


class OrganizationRow(Base):
    """A tenant. `slug` stands in the names of its models, so it never changes and is never given again."""

    __tablename__ = "tenancy_organizations"

    id: Mapped[Id] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    default_project_id: Mapped[Id] = mapped_column("default_project")
    plan_id: Mapped[Id | None] = mapped_column("plan", ForeignKey("tenancy_plans.id"), index=True)
    # From when on its prices go by that plan. `OrganizationPlanRow` tells by which they went before.
    prices_from_ms: Mapped[UnixMs] = mapped_column(default=0)
    # What of these is None comes from the plan.
    weight: Mapped[int | None]
    limits: Mapped[StoredLimits]
    models: Mapped[Texts | None]
    # Percents of budgets whose use is told.
    alert_percents: Mapped[Numbers | None]
    # Grows with every change that may make what is cached of its keys wrong.
    revision: Mapped[Count] = mapped_column(default=1)
    created_at: Mapped[UnixSeconds] = mapped_column("created")
    archived_at: Mapped[UnixSeconds | None] = mapped_column("archived")
    # Why it may use nothing that costs money, as it reads it itself; empty: it may.
    blocked_reason: Mapped[str] = mapped_column(String(200), default="")
    # When the other slices had been told of it.
    announced_at: Mapped[UnixSeconds | None] = mapped_column("announced", index=True)


class ProjectRow(Base):
    __tablename__ = "tenancy_projects"

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization_id: Mapped[Id] = mapped_column("organization", ForeignKey("tenancy_organizations.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    limits: Mapped[StoredLimits]
    models: Mapped[Texts | None]
    model_limits: Mapped[StoredModelLimits]
    created_at: Mapped[UnixSeconds] = mapped_column("created")
    archived_at: Mapped[UnixSeconds | None] = mapped_column("archived")

    @property
    def status(self) -> str:
        return "active" if self.archived_at is None else "archived"


class ApiKeyRow(Base):
    """A key: only its HMAC is kept. Operators' keys have neither organization nor project."""

    __tablename__ = "tenancy_api_keys"
    __table_args__ = (Index("ix_tenancy_api_keys_owner", "organization", "project"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization_id: Mapped[Id | None] = mapped_column("organization", ForeignKey("tenancy_organizations.id"))
    project_id: Mapped[Id | None] = mapped_column("project", ForeignKey("tenancy_projects.id"))
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    last4: Mapped[str] = mapped_column(String(4))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    pepper_version: Mapped[int]
    limits: Mapped[StoredLimits]
    models: Mapped[Texts | None]
    model_limits: Mapped[StoredModelLimits]
    # What it is for (`core.principal.KeyScope`) and from where; None is everything, and everywhere.
    scopes: Mapped[Texts | None]
    addresses: Mapped[Texts | None]
    created_at: Mapped[UnixSeconds] = mapped_column("created")
    expires_at: Mapped[UnixSeconds | None] = mapped_column("expires")
    revoked_at: Mapped[UnixSeconds | None] = mapped_column("revoked")

    @property
    def owner_project_access(self) -> str:
        return "active" if self.revoked_at is None else "inactive"

    @property
    def redacted_value(self) -> str:
        return redacted(Role(self.role), self.last4)


class CheckpointPermissionRow(Base):
    """Lets a project use a fine-tuned model of its organization, by its proper name, whatever its own list says."""

    __tablename__ = "tenancy_checkpoint_permissions"
    __table_args__ = (
        UniqueConstraint("project", "model"),
        Index("ix_tenancy_checkpoint_permissions_model", "organization", "model"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization_id: Mapped[Id] = mapped_column("organization", ForeignKey("tenancy_organizations.id"))
    project_id: Mapped[Id] = mapped_column("project", ForeignKey("tenancy_projects.id"))
    model: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[UnixSeconds] = mapped_column("created")


class AuditRow(Base):
    """One change somebody made. Rows are only ever added."""

    __tablename__ = "tenancy_audit_log"
    __table_args__ = (Index("ix_tenancy_audit_log_organization", "organization", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    organization_id: Mapped[Id | None] = mapped_column("organization")
    actor: Mapped[Id]
    action: Mapped[str] = mapped_column(String(64))
    resource: Mapped[Id]
    at: Mapped[UnixSeconds]
    details: Mapped[Json]
    # What stood there where `details` says what stands there now.
    before: Mapped[Json] = mapped_column(default=dict)
