"""Plans multiply prices and grant service tiers; the two new tables say from when on, and are only added to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("tenancy_plans", sa.Column("price_multiplier", sa.String(8), nullable=False, server_default="1"))
    op.add_column("tenancy_plans", sa.Column("service_tiers", _JSON, nullable=False, server_default="{}"))
    for table in ("tenancy_plans", "tenancy_organizations"):
        op.add_column(table, sa.Column("prices_from_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "tenancy_plan_prices",
        sa.Column("plan", sa.String(96), primary_key=True),
        sa.Column("from_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("multiplier", sa.String(8), nullable=False),
        sa.Column("tiers", _JSON, nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "tenancy_organization_plans",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("from_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("plan", sa.String(96)),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
    )
    # No plan had prices of its own, so it does not matter since when an organization has been on it.
    op.execute(
        """INSERT INTO tenancy_organization_plans (organization, from_ms, plan, published_at_ms)
           SELECT id, 0, plan, 0 FROM tenancy_organizations WHERE plan IS NOT NULL"""
    )
    tier = sa.Column("service_tier", sa.String(16), nullable=False, server_default="default")
    op.add_column("billing_charges", tier)
