"""Money without a hole: outbox, revisions, whole rate cards, idempotency keys, stale invoices."""

import json

import sqlalchemy as sa
from alembic import op

from tokenyard.core.redis_keys import bucket_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _revisions_and_outbox()
    _rate_cards()
    _idempotency_keys()
    _stale_invoices()
    _reservations()
    # Budgets in Redis name a scope and a month, without the organization.
    op.create_index("billing_spending_month", "billing_spending", ["scope", "month"])


def _revisions_and_outbox() -> None:
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


def _rate_cards() -> None:
    # The checksums of cards that were used are kept until the whole cards are imported.
    op.rename_table("billing_rate_cards", "billing_used_card_checksums")
    op.create_table(
        "billing_rate_cards",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("effective_from_ms", sa.BigInteger(), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("published_by", sa.String(96), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("effective_from_ms"),
    )


def _idempotency_keys() -> None:
    op.add_column("finetune_jobs", sa.Column("idempotency_key", sa.String(255)))
    op.add_column("finetune_jobs", sa.Column("request_digest", sa.String(64)))
    op.create_index("ix_finetune_jobs_idempotency", "finetune_jobs", ["organization", "idempotency_key"], unique=True)


def _stale_invoices() -> None:
    # Every stored draft is one: earlier ones counted credit by what was charged.
    stale = op.create_table(
        "billing_stale_invoices",
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("marks", sa.BigInteger(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "period"),
    )
    charged = op.get_bind().execute(sa.text("SELECT DISTINCT organization, period FROM billing_charges"))
    marks = [
        {"organization": owner, "period": period, "bucket": bucket_of(owner), "marks": 1, "retry_at_ms": 0}
        for owner, period in charged
    ]
    op.bulk_insert(stale, marks)


def _reservations() -> None:
    # "posted" said that Redis may hold a reservation too that the ledger has: a message gives that hold back now.
    connection = op.get_bind()
    posted = connection.execute(sa.text("SELECT organization, job FROM billing_reservations WHERE state = 'posted'"))
    released = [{"organization": owner, "released": [job]} for owner, job in posted]
    connection.execute(sa.text("UPDATE billing_reservations SET state = 'open' WHERE state = 'posted'"))
    if released:
        columns: list[sa.ColumnClause[object]] = [
            sa.column("topic"),
            sa.column("payload"),
            sa.column("failures"),
            sa.column("due_at_ms"),
        ]
        message = {"topic": "budgets", "payload": json.dumps(released), "failures": 0, "due_at_ms": 0}
        connection.execute(sa.insert(sa.table("storage_outbox", *columns)), [message])
