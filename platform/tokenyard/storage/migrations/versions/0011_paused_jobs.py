"""Fine-tuning jobs can be paused: attempts that broke off are counted apart from those that were paused."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("lost_attempts", sa.Integer(), nullable=False, server_default="0"))
    # Until now a next attempt was only made of one that broke off.
    op.execute("UPDATE finetune_jobs SET lost_attempts = attempt - 1 WHERE attempt > 1")
