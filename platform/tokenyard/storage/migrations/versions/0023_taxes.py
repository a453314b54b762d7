"""Rates of tax, where organizations pay it, and what it comes to on invoices."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "billing_tax_rates",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("jurisdiction", sa.String(6), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("inclusive", sa.Boolean(), nullable=False),
        sa.Column("effective_from_ms", sa.BigInteger(), nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("published_by", sa.String(96), nullable=False),
    )
    start = ["jurisdiction", "effective_from_ms"]
    op.create_index("billing_tax_rates_start", "billing_tax_rates", start, unique=True)
    op.create_table(
        "billing_tax_profiles",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("since_period", sa.String(7), primary_key=True),
        sa.Column("jurisdiction", sa.String(6), nullable=False),
        sa.Column("exemption", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("billing_tax_profiles_jurisdiction", "billing_tax_profiles", ["jurisdiction"])
    _invoices()
    _lines()


def _invoices() -> None:
    for name in ("tax", "tax_included", "rounding"):
        op.add_column("billing_invoices", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    texts: tuple[tuple[str, sa.types.TypeEngine[str], str], ...] = (
        ("tax_jurisdiction", sa.String(6), ""),
        ("tax_exemption", sa.String(16), "none"),
        ("tax_reason", sa.Text(), ""),
    )
    for name, kind, default in texts:
        op.add_column("billing_invoices", sa.Column(name, kind, nullable=False, server_default=default))


def _lines() -> None:
    for name in ("credit_applied", "tax"):
        op.add_column("billing_invoice_lines", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    for column in (
        sa.Column("tax_name", sa.String(64), nullable=False, server_default=""),
        sa.Column("tax_rate", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("tax_inclusive", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("billing_invoice_lines", column)
    # Credit pays for lines in their order, as it does from now on.
    left = """(SELECT credit_applied FROM billing_invoices WHERE id = billing_invoice_lines.invoice)
              - (SELECT coalesce(sum(amount), 0) FROM billing_invoice_lines AS earlier
                 WHERE earlier.invoice = billing_invoice_lines.invoice
                 AND earlier.number < billing_invoice_lines.number)"""
    op.execute(
        f"UPDATE billing_invoice_lines SET credit_applied = CASE WHEN {left} <= 0 THEN 0"  # noqa: S608
        f" WHEN {left} < amount THEN {left} ELSE amount END"
    )
