"""Daily seals of charges and journal."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "billing_seals",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("root", sa.String(64), nullable=False),
        sa.Column("organizations", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("sealed_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "billing_sealed_parts",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("charges", sa.BigInteger(), nullable=False),
        sa.Column("transactions", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("billing_charges_recorded", "billing_charges", ["organization", "charged_at_ms"])
