"""Jobs whose files are checked in the training cluster."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("check_run", sa.Integer(), nullable=False, server_default="1"))
