"""Hours for which adapters are hosted, plans that keep some in memory, and model files that are published."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_HOUR_MS = 3_600_000


def upgrade() -> None:
    _adapters()
    op.add_column("tenancy_plans", sa.Column("pinned_adapters", sa.Integer(), nullable=False, server_default="0"))
    for table in ("billing_charges", "billing_hourly_usage"):
        for name in ("hosted_hours", "pinned_hours"):
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))

    op.create_table(
        "catalog_model_files",
        sa.Column("revision", sa.Integer(), primary_key=True),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("published_by", sa.String(96), nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
    )


def _adapters() -> None:
    op.add_column("catalog_adapters", sa.Column("key", sa.String(96), nullable=False, server_default=""))
    op.add_column("catalog_adapters", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("next_hour_ms", "pinned_ms"):
        op.add_column("catalog_adapters", sa.Column(name, sa.BigInteger()))
    op.create_index("ix_catalog_adapters_hosting", "catalog_adapters", ["next_hour_ms"])
    op.create_index("ix_catalog_adapters_pinned", "catalog_adapters", ["pinned_ms"])
    op.execute(
        """UPDATE catalog_adapters SET key = COALESCE(
               (SELECT finetune_jobs.key FROM finetune_jobs WHERE finetune_jobs.id = catalog_adapters.job), job)"""
    )
    # Hours are counted from now on.
    first = (int(time.time() * 1000) // _HOUR_MS + 1) * _HOUR_MS
    adapters = sa.table("catalog_adapters", sa.column("next_hour_ms"), sa.column("state"))
    op.execute(adapters.update().where(adapters.c.state == "live").values(next_hour_ms=first))
