"""Periods that close, time zones of organizations, invoices that are issued and settled."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from tokenyard.core.redis_keys import bucket_of

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _charges()
    _invoices()
    _periods()
    op.add_column(
        "billing_open_requests", sa.Column("admitted_at_ms", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.create_table(
        "billing_settlements",
        sa.Column("invoice", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(96), nullable=False),
        sa.Column("idempotency_key", sa.String(128), nullable=False),
        sa.Column("transaction", sa.String(96), nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger(), nullable=False),
    )


def _charges() -> None:
    op.add_column("billing_charges", sa.Column("billed_in", sa.String(7), nullable=False, server_default=""))
    op.execute("UPDATE billing_charges SET billed_in = period")
    op.drop_index("billing_charges_period", table_name="billing_charges")
    op.create_index("billing_charges_billed", "billing_charges", ["organization", "billed_in"])


def _invoices() -> None:
    for name in ("period_start_ms", "period_end_ms"):
        op.add_column("billing_invoices", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("billing_invoices", sa.Column("issuer", sa.String(128)))
    op.add_column("billing_invoices", sa.Column("number", sa.String(64)))
    for name in ("sequence", "issued_at_ms", "due_at_ms"):
        op.add_column("billing_invoices", sa.Column(name, sa.BigInteger()))
    op.create_index("billing_invoices_number", "billing_invoices", ["issuer", "sequence"], unique=True)
    op.create_table(
        "billing_invoice_numbers",
        sa.Column("issuer", sa.String(128), primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
    op.add_column("billing_invoice_lines", sa.Column("usage_period", sa.String(7), nullable=False, server_default=""))
    op.execute(
        "UPDATE billing_invoice_lines SET usage_period ="
        " (SELECT period FROM billing_invoices WHERE billing_invoices.id = billing_invoice_lines.invoice)"
    )
    change = sa.text(
        "UPDATE billing_invoices SET period_start_ms = :start, period_end_ms = :end WHERE period = :period"
    )
    for (period,) in _rows("SELECT DISTINCT period FROM billing_invoices"):
        start, end = _bounds(period)
        op.get_bind().execute(change, {"start": start, "end": end, "period": period})


def _periods() -> None:
    op.create_table(
        "billing_time_zones",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("since_period", sa.String(7), primary_key=True),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
    )
    periods = op.create_table(
        "billing_periods",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("period", sa.String(7), primary_key=True),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger()),
        sa.Column("retry_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("billing_periods_end", "billing_periods", ["bucket", "closed_at_ms", "end_ms"])
    rows = []
    for owner, period in _rows("SELECT DISTINCT organization, period FROM billing_charges"):
        start, end = _bounds(period)
        bounds = {"start_ms": start, "end_ms": end, "closed_at_ms": None, "retry_at_ms": 0}
        rows.append({"organization": owner, "period": period, "bucket": bucket_of(owner), **bounds})
    op.bulk_insert(periods, rows)
    # They passed what was put off or waited for a price; workers find out anew, within seconds.
    op.execute("UPDATE billing_bucket_leases SET watermark_ms = 0")


def _rows(query: str) -> list[list[str]]:
    return [list(row) for row in op.get_bind().execute(sa.text(query))]


def _bounds(period: str) -> tuple[int, int]:
    """Return the first moment of a UTC month, and the first after it."""
    year, month = map(int, period.split("-"))
    start, end = datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)
