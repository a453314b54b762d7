"""Advisory locks need no table; files have their own; a job names its method; dead letters; no time zones."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("finetune_turns")
    op.drop_column("tenancy_organizations", "timezone")
    op.rename_table("billing_dead_events", "billing_dead_letters")
    _files()
    _jobs()


def _files() -> None:
    op.drop_index("ix_finetune_files_list", table_name="finetune_files")
    op.drop_index("ix_finetune_files_state", table_name="finetune_files")
    op.rename_table("finetune_files", "files_objects")
    op.create_index("ix_files_objects_list", "files_objects", ["organization", "created_at_ms", "id"])
    op.create_index("ix_files_objects_state", "files_objects", ["state"])


def _jobs() -> None:
    op.add_column("finetune_jobs", sa.Column("method", sa.String(24), nullable=False, server_default="supervised"))
    op.drop_column("finetune_checkpoints", "path")
    op.drop_column("finetune_checkpoints", "attempt")
