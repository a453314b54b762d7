"""An organization's revision replaces the versions of its keys; the transactional outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenancy_organizations", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="1"))
    op.drop_index("ix_tenancy_api_keys_changed_ms", table_name="tenancy_api_keys")
    op.drop_column("tenancy_api_keys", "changed_ms")
    op.drop_column("tenancy_api_keys", "version")
    op.create_table(
        "storage_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("topic", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("carried_to", sa.String(40), nullable=True),
        sa.Column("carried_at_ms", sa.BigInteger(), nullable=True),
    )
    op.create_index("ix_storage_outbox_due_at_ms", "storage_outbox", ["due_at_ms"])
