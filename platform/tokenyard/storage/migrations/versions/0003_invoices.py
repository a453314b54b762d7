"""Stale invoices; every stored draft is one, for earlier ones counted credit by what was charged."""

import sqlalchemy as sa
from alembic import op

from tokenyard.core.redis_keys import bucket_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stale = op.create_table(
        "billing_stale_invoices",
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("marks", sa.BigInteger(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "period"),
    )
    charged = op.get_bind().execute(sa.text("SELECT DISTINCT organization, period FROM billing_charges"))
    marks = [
        {"organization": owner, "period": period, "bucket": bucket_of(owner), "marks": 1, "retry_at_ms": 0}
        for owner, period in charged
    ]
    op.bulk_insert(stale, marks)
