"""Plans, allowed models and limits of models, what keys are for and from where, what stood there before a change."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tenancy_plans",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("limits", _JSON, nullable=False),
        sa.Column("models", _JSON),
        sa.Column("created", sa.BigInteger(), nullable=False),
    )
    _organizations()
    for table in ("tenancy_projects", "tenancy_api_keys"):
        op.add_column(table, sa.Column("models", _JSON))
        op.add_column(table, sa.Column("model_limits", _JSON, nullable=False, server_default="{}"))
    op.add_column("tenancy_api_keys", sa.Column("scopes", _JSON))
    op.add_column("tenancy_api_keys", sa.Column("addresses", _JSON))
    op.add_column("tenancy_audit_log", sa.Column("before", _JSON, nullable=False, server_default="{}"))
    _alerts()


def _organizations() -> None:
    # Once every organization had a weight; now it may leave that to its plan, as those do that had the usual one.
    op.execute("ALTER TABLE tenancy_organizations RENAME COLUMN weight TO stated_weight")
    op.add_column("tenancy_organizations", sa.Column("weight", sa.Integer()))
    op.execute("UPDATE tenancy_organizations SET weight = stated_weight WHERE stated_weight <> 1")
    op.drop_column("tenancy_organizations", "stated_weight")
    op.add_column("tenancy_organizations", sa.Column("models", _JSON))
    op.add_column("tenancy_organizations", sa.Column("alert_percents", _JSON))
    plan = sa.Column("plan", sa.String(96), sa.ForeignKey("tenancy_plans.id"))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ALTER TABLE tenancy_organizations ADD COLUMN plan VARCHAR(96) REFERENCES tenancy_plans (id)")
    else:
        op.add_column("tenancy_organizations", plan)
    op.create_index("ix_tenancy_organizations_plan", "tenancy_organizations", ["plan"])


def _alerts() -> None:
    op.create_table(
        "billing_budget_alerts",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("budget", sa.String(16), primary_key=True),
        sa.Column("scope", sa.String(96), primary_key=True),
        sa.Column("percent", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(96), nullable=False, unique=True),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("billing_budget_alerts_time", "billing_budget_alerts", ["organization", "at_ms", "id"])
