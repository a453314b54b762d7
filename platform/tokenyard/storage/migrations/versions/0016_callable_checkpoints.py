"""Checkpoints that can be called, and permissions of projects to use fine-tuned models."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finetune_jobs", sa.Column("callable_checkpoints", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("finetune_checkpoints", sa.Column("adapter", sa.String(96)))
    op.add_column("finetune_checkpoints", sa.Column("due_ms", sa.BigInteger()))
    op.add_column("finetune_checkpoints", sa.Column("lease_owner", sa.String(64)))
    op.create_index("ix_finetune_checkpoints_due", "finetune_checkpoints", ["due_ms"])

    op.add_column("catalog_adapters", sa.Column("checkpoint_of", sa.String(96)))
    op.add_column("catalog_adapters", sa.Column("last_step", sa.Integer()))
    op.create_index("ix_catalog_adapters_checkpoints", "catalog_adapters", ["checkpoint_of"])

    op.create_table(
        "tenancy_checkpoint_permissions",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), sa.ForeignKey("tenancy_organizations.id"), nullable=False),
        sa.Column("project", sa.String(96), sa.ForeignKey("tenancy_projects.id"), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("project", "model"),
    )
    op.create_index(
        "ix_tenancy_checkpoint_permissions_model", "tenancy_checkpoint_permissions", ["organization", "model"]
    )
