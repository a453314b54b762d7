"""A fine-tuning job remembers the idempotency key of its creation, and what was asked under it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("idempotency_key", sa.String(255)))
    op.add_column("finetune_jobs", sa.Column("request_digest", sa.String(64)))
    op.create_index("ix_finetune_jobs_idempotency", "finetune_jobs", ["organization", "idempotency_key"], unique=True)
