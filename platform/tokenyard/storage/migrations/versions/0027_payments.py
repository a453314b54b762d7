"""Payments through a provider; dunning, which ends in a blocked organization."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tenancy_organizations", sa.Column("blocked_reason", sa.String(200), nullable=False, server_default="")
    )
    op.create_index("billing_invoices_due", "billing_invoices", ["state", "due_at_ms"])
    _create_payments()
    op.create_table(
        "billing_payment_customers",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("provider", sa.String(16), primary_key=True),
        sa.Column("customer", sa.String(255), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("default_method", sa.String(255)),
        sa.Column("method_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "billing_payment_setups",
        sa.Column("checkout", sa.String(255), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("billing_payment_setups_due", "billing_payment_setups", ["state", "bucket", "retry_at_ms"])
    op.create_table(
        "billing_dunning",
        sa.Column("invoice", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("stepped_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("blocks", sa.Boolean(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("billing_dunning_organization", "billing_dunning", ["organization"])
    op.create_table(
        "billing_dunning_exceptions",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("exempt", sa.Boolean(), nullable=False),
        sa.Column("paused_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(96), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
    )


def _create_payments() -> None:
    op.create_table(
        "billing_payments",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("invoice", sa.String(96)),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(16), nullable=False),
        sa.Column("customer", sa.String(255), nullable=False),
        sa.Column("method", sa.String(255)),
        sa.Column("charge", sa.String(255)),
        sa.Column("checkout", sa.String(255)),
        sa.Column("checkout_url", sa.Text()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("failure_code", sa.String(64), nullable=False),
        sa.Column("failure_message", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("credited", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String(128), nullable=False),
        sa.Column("actor", sa.String(96), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger()),
    )
    op.create_index("billing_payments_key", "billing_payments", ["organization", "idempotency_key"], unique=True)
    op.create_index("billing_payments_organization", "billing_payments", ["organization", "created_at_ms", "id"])
    op.create_index("billing_payments_due", "billing_payments", ["state", "bucket", "retry_at_ms"])
    op.create_index("billing_payments_invoice", "billing_payments", ["invoice"])
    only_where = {
        "live": ("invoice", "invoice IS NOT NULL AND state IN ('created', 'processing')"),
        "charge": ("charge", "charge IS NOT NULL"),
        "checkout": ("checkout", "checkout IS NOT NULL"),
    }
    for name, (column, condition) in only_where.items():
        there = sa.text(condition)
        op.create_index(
            f"billing_payments_{name}",
            "billing_payments",
            [column],
            unique=True,
            sqlite_where=there,
            postgresql_where=there,
        )
