"""What jobs count in the share of their organization, how far they have come, their result files, plans' limits."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    for name in ("started_at_ms", "bound_tokens"):
        op.add_column("finetune_jobs", sa.Column(name, sa.BigInteger()))
    for name in ("fair", "steps"):
        op.add_column("finetune_jobs", sa.Column(name, _JSON))
    op.add_column("finetune_jobs", sa.Column("machine", sa.String(64)))
    op.add_column("finetune_jobs", sa.Column("result_file", sa.String(96)))
    op.create_index("ix_finetune_jobs_started", "finetune_jobs", ["started_at_ms"])
    op.execute("UPDATE finetune_jobs SET started_at_ms = created_at_ms WHERE slot IS NOT NULL")
    op.add_column("tenancy_plans", sa.Column("training", _JSON, nullable=False, server_default="{}"))
