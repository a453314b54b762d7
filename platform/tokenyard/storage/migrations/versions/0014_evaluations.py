"""What a job measured beside its base, what it is to ask both models, and whether a worse one is published."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column(
        "finetune_jobs", sa.Column("publish_if_worse", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    for name in ("evaluation", "held_out"):
        op.add_column("finetune_jobs", sa.Column(name, _JSON))
    op.add_column("finetune_jobs", sa.Column("evaluation_file", sa.String(96)))
