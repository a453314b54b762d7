"""Corrections of charges, and the credit notes that they make."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("correction", "reverses", "credit_note"):
        op.add_column("billing_charges", sa.Column(name, sa.String(96)))
    _partial_index("reverses", unique=True)
    _partial_index("credit_note", unique=False)
    _credit_notes()
    op.create_table(
        "billing_corrections",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("idempotency_key", sa.String(128), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("card", sa.String(64)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(96), nullable=False),
        sa.Column("requested_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("applied_at_ms", sa.BigInteger()),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("part_ms", sa.BigInteger(), nullable=False),
        sa.Column("part_key", sa.String(96), nullable=False),
        sa.Column("charges", sa.BigInteger(), nullable=False),
        sa.Column("lowered", sa.BigInteger(), nullable=False),
        sa.Column("raised", sa.BigInteger(), nullable=False),
    )
    key = ["organization", "idempotency_key"]
    op.create_index("billing_corrections_key", "billing_corrections", key, unique=True)
    op.create_index("billing_corrections_pending", "billing_corrections", ["bucket", "applied_at_ms"])


def _partial_index(column: str, *, unique: bool) -> None:
    there = sa.text(f"{column} IS NOT NULL")
    name = f"billing_charges_{column}"
    op.create_index(name, "billing_charges", [column], unique=unique, sqlite_where=there, postgresql_where=there)


def _credit_notes() -> None:
    op.create_table(
        "billing_credit_notes",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("correction", sa.String(96), nullable=False),
        sa.Column("invoice", sa.String(96), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("lowered", sa.BigInteger(), nullable=False),
        sa.Column("lowered_account", sa.String(32), nullable=False),
        sa.Column("credited", sa.BigInteger(), nullable=False),
        sa.Column("issuer", sa.String(128)),
        sa.Column("sequence", sa.BigInteger()),
        sa.Column("number", sa.String(64)),
        sa.Column("issued_at_ms", sa.BigInteger()),
    )
    op.create_index("billing_credit_notes_organization", "billing_credit_notes", ["organization", "begun_at_ms"])
    op.create_index("billing_credit_notes_invoice", "billing_credit_notes", ["invoice"])
    op.create_index("billing_credit_notes_correction", "billing_credit_notes", ["correction"])
    op.create_index("billing_credit_notes_number", "billing_credit_notes", ["issuer", "sequence"], unique=True)
    op.create_table(
        "billing_credit_note_lines",
        sa.Column("credit_note", sa.String(96), sa.ForeignKey("billing_credit_notes.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("usage_period", sa.String(7), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("price", sa.String(320), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "billing_credit_note_numbers",
        sa.Column("issuer", sa.String(128), primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
