"""Jobs that are trials of a sweep, of which the best is published."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("sweep", sa.String(96)))
    op.add_column("finetune_jobs", sa.Column("trial", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("finetune_jobs", sa.Column("better_trial", sa.String(96)))
    op.create_index("ix_finetune_jobs_sweep", "finetune_jobs", ["sweep", "trial"])
