"""What else a job leaves its tenant: files for TensorBoard."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("integrations", sa.JSON().with_variant(JSONB(), "postgresql")))
    op.add_column("finetune_jobs", sa.Column("tensorboard_file", sa.String(96)))
