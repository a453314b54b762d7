"""Runs of Weights & Biases among a job's result files."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("wandb", sa.JSON().with_variant(JSONB(), "postgresql")))
    op.add_column("finetune_jobs", sa.Column("wandb_file", sa.String(96)))
