"""Rate cards stand in SQL whole; the checksums of those used before are kept until their files are imported."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.rename_table("billing_rate_cards", "billing_used_card_checksums")
    op.create_table(
        "billing_rate_cards",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("effective_from_ms", sa.BigInteger(), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("published_by", sa.String(96), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("effective_from_ms"),
    )
