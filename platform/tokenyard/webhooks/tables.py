"""Tables of webhooks: endpoints, events, who is to be told of them, and every attempt to tell."""

from sqlalchemy import JSON, BigInteger, Boolean, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Id, Json, UnixMs
from tokenyard.storage.database import Base

_Number = BigInteger().with_variant(Integer(), "sqlite")


class WebhookEndpointRow(Base):
    """Where an organization wants to be told of what. `secret` and `former_secret` are encrypted.

    `former_secret` signs beside the other until `former_until_ms`. `failing_since_ms` is the first failure since the
    last success; `disabled_reason` says why the platform disabled it.
    """

    __tablename__ = "webhooks_endpoints"

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(128))
    url: Mapped[str] = mapped_column(String(2048))
    event_types: Mapped[list[str]] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))
    enabled: Mapped[bool] = mapped_column(Boolean)
    disabled_reason: Mapped[str | None] = mapped_column(String(255))
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    secret_hint: Mapped[str] = mapped_column(String(16))
    former_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    former_until_ms: Mapped[UnixMs | None]
    failing_since_ms: Mapped[UnixMs | None]
    created_at_ms: Mapped[UnixMs]
    updated_at_ms: Mapped[UnixMs]


class WebhookEventRow(Base):
    """Something that happened, whoever is told of it."""

    __tablename__ = "webhooks_events"
    __table_args__ = (Index("ix_webhooks_events_organization", "organization", "at_ms", "id"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    type: Mapped[str] = mapped_column(String(64))
    data: Mapped[Json]
    at_ms: Mapped[UnixMs] = mapped_column(index=True)


class WebhookDeliveryRow(Base):
    """One event for one endpoint. `due_at_ms`: when it is sent next, None once that is over.

    While a worker sends it, `lease` is a word of that worker's and `due_at_ms` the end of its lease.
    """

    __tablename__ = "webhooks_deliveries"
    __table_args__ = (
        UniqueConstraint("event", "endpoint"),
        Index("ix_webhooks_deliveries_endpoint", "endpoint", "state"),
    )

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    organization: Mapped[Id]
    event: Mapped[Id]
    endpoint: Mapped[Id]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at_ms: Mapped[UnixMs | None] = mapped_column(index=True)
    lease: Mapped[str | None] = mapped_column(String(32), index=True)


class WebhookAttemptRow(Base):
    """One attempt. `status` is None where nothing answered, and `error` says why; `answer` is how the answer began."""

    __tablename__ = "webhooks_attempts"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    organization: Mapped[Id]
    event: Mapped[Id] = mapped_column(index=True)
    endpoint: Mapped[Id] = mapped_column(index=True)
    at_ms: Mapped[UnixMs]
    duration_ms: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(255))
    answer: Mapped[str] = mapped_column(Text)
