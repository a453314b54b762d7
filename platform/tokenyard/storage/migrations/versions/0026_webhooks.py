"""Webhooks: endpoints, events, deliveries and attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhooks_endpoints",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False, index=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("event_types", _JSON, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(255)),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("secret_hint", sa.String(16), nullable=False),
        sa.Column("former_secret", sa.LargeBinary()),
        sa.Column("former_until_ms", sa.BigInteger()),
        sa.Column("failing_since_ms", sa.BigInteger()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "webhooks_events",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False, index=True),
        sa.Index("ix_webhooks_events_organization", "organization", "at_ms", "id"),
    )
    op.create_table(
        "webhooks_deliveries",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("event", sa.String(96), nullable=False),
        sa.Column("endpoint", sa.String(96), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), index=True),
        sa.Column("lease", sa.String(32), index=True),
        sa.UniqueConstraint("event", "endpoint"),
        sa.Index("ix_webhooks_deliveries_endpoint", "endpoint", "state"),
    )
    op.create_table(
        "webhooks_attempts",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("event", sa.String(96), nullable=False, index=True),
        sa.Column("endpoint", sa.String(96), nullable=False, index=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.String(255)),
        sa.Column("answer", sa.Text(), nullable=False),
    )
