"""Responses and chat completions that are kept for their clients."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "responses_answers",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("project", sa.String(96), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("previous", sa.String(96)),
        sa.Column("lease_until_ms", sa.BigInteger()),
        sa.Column("details", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    listed = ["organization", "project", "kind", "created_at_ms", "id"]
    op.create_index("ix_responses_answers_list", "responses_answers", listed)
    op.create_index("ix_responses_answers_size", "responses_answers", ["organization", "size"])
    op.create_index("ix_responses_answers_lease_until_ms", "responses_answers", ["lease_until_ms"])
    op.create_index("ix_responses_answers_created_at_ms", "responses_answers", ["created_at_ms"])
