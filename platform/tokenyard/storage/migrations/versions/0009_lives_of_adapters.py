"""Adapters drain before they retire, aliases have a history, and jobs may take an adapter in that is there already."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("catalog_adapters", sa.Column("draining_ms", sa.BigInteger()))
    op.create_index("ix_catalog_adapters_draining", "catalog_adapters", ["state", "draining_ms"])
    # Whatever may still have files may still be held.
    op.execute(
        """UPDATE catalog_adapters SET state = 'draining', draining_ms = retired_ms, retired_ms = NULL
           WHERE state = 'retired' AND files_deleted_ms IS NULL"""
    )
    _alias_revisions()
    op.add_column("finetune_jobs", sa.Column("lora", sa.JSON().with_variant(JSONB(), "postgresql")))
    op.add_column("finetune_jobs", sa.Column("folder_deleted_ms", sa.BigInteger()))
    op.create_index("ix_finetune_jobs_folders", "finetune_jobs", ["folder_deleted_ms", "state", "finished_at"])


def _alias_revisions() -> None:
    op.add_column("catalog_aliases", sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("catalog_aliases", sa.Column("changed_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE catalog_aliases SET changed_ms = created_ms")
    op.create_table(
        "catalog_alias_revisions",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("adapter", sa.String(96), sa.ForeignKey("catalog_adapters.id")),
        sa.Column("restores", sa.Integer()),
        sa.Column("key", sa.String(96)),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
    )
    op.execute(
        """INSERT INTO catalog_alias_revisions (organization, alias, number, model, adapter, at_ms)
           SELECT organization, alias, 1, model, adapter, created_ms FROM catalog_aliases"""
    )
