"""Gigabytes that organizations keep for a month, counted and charged."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("billing_charges", "billing_hourly_usage"):
        op.add_column(table, sa.Column("stored_months", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "files_stored_months",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("byte_hours", sa.BigInteger(), nullable=False),
        sa.Column("months", sa.BigInteger(), nullable=False),
        sa.Column("next_hour_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_files_stored_months_due", "files_stored_months", ["next_hour_ms"])
