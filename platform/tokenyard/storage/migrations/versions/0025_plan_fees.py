"""What plans ask for a month: a fee, and a minimum."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("tenancy_plans", "tenancy_plan_prices"):
        for name in ("monthly_fee", "monthly_minimum"):
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    archived: sa.Column[bool] = sa.Column("archived", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("tenancy_organization_plans", archived)
    # Whoever is archived now was so before any plan asked a fee; what it was on stays.
    op.execute(
        """INSERT INTO tenancy_organization_plans (organization, from_ms, plan, archived, published_at_ms)
           SELECT id, last.from_ms + 1, organizations.plan, TRUE, 0
           FROM tenancy_organizations AS organizations
           JOIN (SELECT organization, MAX(from_ms) AS from_ms FROM tenancy_organization_plans GROUP BY organization)
                AS last ON last.organization = organizations.id
           WHERE organizations.archived IS NOT NULL"""
    )
    for table in ("billing_charges", "billing_hourly_usage"):
        op.add_column(table, sa.Column("fees", sa.BigInteger(), nullable=False, server_default="0"))
