"""Evals, their runs, and what came of each row."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "evals_evals",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("project", sa.String(96), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("details", json, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_evals_evals_created", "evals_evals", ["organization", "project", "created_at_ms", "id"])
    op.create_index("ix_evals_evals_updated", "evals_evals", ["organization", "project", "updated_at_ms", "id"])
    op.create_table(
        "evals_runs",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("eval", sa.String(96), nullable=False),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("project", sa.String(96), nullable=False),
        sa.Column("key", sa.String(96), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("details", json, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger()),
        sa.Column("total", sa.Integer()),
        sa.Column("tally", json, nullable=False),
        sa.Column("error", json),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_evals_runs_list", "evals_runs", ["eval", "created_at_ms", "id"])
    op.create_index("ix_evals_runs_due", "evals_runs", ["state", "lease_until_ms"])
    op.create_index("ix_evals_runs_organization", "evals_runs", ["organization", "state"])
    op.create_index("ix_evals_runs_created_at_ms", "evals_runs", ["created_at_ms"])
    op.create_table(
        "evals_items",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("run", sa.String(96), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("run", "number"),
    )
    op.create_index("ix_evals_items_size", "evals_items", ["organization", "size"])
