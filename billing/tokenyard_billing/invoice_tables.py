"""Tables of invoices, their periods, how they were settled, and credit notes.

Money is nano-dollars; times are unix milliseconds; every row belongs to one organization unless it says otherwise.
"""

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tokenyard.storage.columns import Count, Id, Nano, UnixMs
from tokenyard.storage.database import Base
from tokenyard_billing.tables import MODEL_LENGTH, PRICE_LENGTH

ISSUER_LENGTH = 128
JURISDICTION_LENGTH = 6
TAX_NAME_LENGTH = 64


class TimeZoneChange(Base):
    """The organization's periods from `since_period` on end in `time_zone`; before the first change they do in UTC."""

    __tablename__ = "billing_time_zones"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    since_period: Mapped[str] = mapped_column(String(7), primary_key=True)  # YYYY-MM
    time_zone: Mapped[str] = mapped_column(String(64))
    changed_at_ms: Mapped[UnixMs]


class BillingPeriod(Base):
    """A period of which something was charged, or a plan asks something.

    What is not after an organization's last closed one is closed too.
    `retry_at_ms` is above 0 after it could not be closed.
    """

    __tablename__ = "billing_periods"
    __table_args__ = (Index("billing_periods_end", "bucket", "closed_at_ms", "end_ms"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(String(7), primary_key=True)  # YYYY-MM
    bucket: Mapped[int] = mapped_column(Integer)
    start_ms: Mapped[UnixMs]
    end_ms: Mapped[UnixMs]  # the first moment after it
    closed_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)


class InvoiceNumbers(Base):
    """The last number that an issuer gave to an invoice. Belongs to no organization."""

    __tablename__ = "billing_invoice_numbers"

    issuer: Mapped[str] = mapped_column(String(ISSUER_LENGTH), primary_key=True)
    last: Mapped[Count]


class Invoice(Base):
    """The bill of one organization for one period.

    `amount_due` = `total` - `credit_applied` + `tax` - `tax_included` + `rounding`. `tax` is all of it, `tax_included`
    is what the prices hold already. `rounding` is 0 in a draft.

    `state` is draft, open, paid, void or uncollectible. Of an invoice that is no draft nothing but it is written.
    """

    __tablename__ = "billing_invoices"
    __table_args__ = (
        Index("billing_invoices_organization", "organization", "period", unique=True),
        Index("billing_invoices_number", "issuer", "sequence", unique=True),
        Index("billing_invoices_due", "state", "due_at_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    period: Mapped[str] = mapped_column(String(7))
    time_zone: Mapped[str] = mapped_column(String(64))
    period_start_ms: Mapped[UnixMs]
    period_end_ms: Mapped[UnixMs]
    state: Mapped[str] = mapped_column(String(16))
    total: Mapped[Nano]
    credit_applied: Mapped[Nano]
    tax: Mapped[Nano] = mapped_column(default=0)
    tax_included: Mapped[Nano] = mapped_column(default=0)
    rounding: Mapped[Nano] = mapped_column(default=0)
    amount_due: Mapped[Nano]
    tax_jurisdiction: Mapped[str] = mapped_column(String(JURISDICTION_LENGTH), default="")  # empty: none was stated
    tax_exemption: Mapped[str] = mapped_column(String(16), default="none")
    tax_reason: Mapped[str] = mapped_column(Text, default="")
    drafted_at_ms: Mapped[UnixMs]
    issuer: Mapped[str | None] = mapped_column(String(ISSUER_LENGTH))  # this and the next four: None in a draft
    sequence: Mapped[int | None] = mapped_column(BigInteger)  # from 1 for each issuer, without gaps
    number: Mapped[str | None] = mapped_column(String(64))  # as people see it
    issued_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    due_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    lines: Mapped[list["InvoiceLine"]] = relationship(order_by="InvoiceLine.number", lazy="raise", viewonly=True)
    settlement: Mapped["Settlement | None"] = relationship(
        primaryjoin="foreign(Settlement.invoice) == Invoice.id", lazy="raise", viewonly=True
    )
    credit_notes: Mapped[list["CreditNote"]] = relationship(
        primaryjoin="foreign(CreditNote.invoice) == Invoice.id", lazy="raise", viewonly=True
    )

    @property
    def amount_claimed(self) -> int:
        """What is due, less what credit notes took from it."""
        return self.amount_due - sum(note.due_lowered for note in self.credit_notes)

    @property
    def amount_remaining(self) -> int:
        """What is still to be paid: nothing unless it is open."""
        return self.amount_claimed if self.state == "open" else 0


class DocumentLine:
    """`quantity` tokens or hours x `rate` = `amount`, exactly. `kind` is that of a `RatedLine`.

    `tax` is that of `amount` - `credit_applied`, by `tax_rate` millionths: on top of it, or in it (`tax_inclusive`).
    """

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    usage_period: Mapped[str] = mapped_column(String(7))  # before the invoice's own: late usage
    model: Mapped[str] = mapped_column(String(MODEL_LENGTH))
    price: Mapped[str] = mapped_column(String(PRICE_LENGTH))
    kind: Mapped[str] = mapped_column(String(16))
    quantity: Mapped[Count]
    rate: Mapped[Nano]
    amount: Mapped[Nano]
    credit_applied: Mapped[Nano] = mapped_column(default=0)
    tax_name: Mapped[str] = mapped_column(String(TAX_NAME_LENGTH), default="")
    tax_rate: Mapped[int] = mapped_column(Integer, default=0)
    tax_inclusive: Mapped[bool] = mapped_column(default=False)
    tax: Mapped[Nano] = mapped_column(default=0)


class InvoiceLine(DocumentLine, Base):
    """A line of an invoice; below 0 where it takes back what an earlier one billed, to bill it anew."""

    __tablename__ = "billing_invoice_lines"
    __table_args__ = (ForeignKeyConstraint(["invoice"], ["billing_invoices.id"], ondelete="CASCADE"),)

    invoice: Mapped[Id] = mapped_column(primary_key=True, sort_order=-1)


class StaleInvoice(Base):
    """The organization's invoice of the period, and each later one, must be drawn again.

    Written in the transaction of what changes them. `marks` counts those changes: a drafter deletes the row only where
    it is still what it read. `retry_at_ms` is above 0 after a draw that failed.
    """

    __tablename__ = "billing_stale_invoices"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(String(7), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer)
    marks: Mapped[Count]
    retry_at_ms: Mapped[UnixMs]


class Settlement(Base):
    """What ended an open invoice: `state` is paid, void or uncollectible. Never updated, never deleted.

    `note` is the payment's reference or the reason; `idempotency_key` is empty but for a payment.
    """

    __tablename__ = "billing_settlements"

    invoice: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    state: Mapped[str] = mapped_column(String(16))
    amount: Mapped[Nano]
    note: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(96))
    idempotency_key: Mapped[str] = mapped_column(String(128))
    transaction: Mapped[Id]
    settled_at_ms: Mapped[UnixMs]


class CreditNote(Base):
    """What a correction takes back of an issued invoice: `total` of its charges.

    It grows until the correction is done; then it is issued, and never written again. `total` = `lowered` + `credited`.
    `credited` had been paid, by money or by credit, and is credit again. `lowered` was not: with its tax it lowers, by
    `due_lowered` = `lowered` + `tax` - `tax_included` + `rounding`, what stands in `lowered_account`: what is to be
    received of an open invoice, what had been let go of a void or uncollectible one.
    """

    __tablename__ = "billing_credit_notes"
    __table_args__ = (
        Index("billing_credit_notes_organization", "organization", "begun_at_ms"),
        Index("billing_credit_notes_invoice", "invoice"),
        Index("billing_credit_notes_correction", "correction"),
        Index("billing_credit_notes_number", "issuer", "sequence", unique=True),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    correction: Mapped[Id]
    invoice: Mapped[Id]
    reason: Mapped[str] = mapped_column(Text)
    begun_at_ms: Mapped[UnixMs]
    total: Mapped[Nano]
    lowered: Mapped[Nano] = mapped_column(default=0)
    tax: Mapped[Nano] = mapped_column(default=0)
    tax_included: Mapped[Nano] = mapped_column(default=0)
    rounding: Mapped[Nano] = mapped_column(default=0)
    due_lowered: Mapped[Nano] = mapped_column(default=0)
    lowered_account: Mapped[str] = mapped_column(String(32), default="")
    credited: Mapped[Nano] = mapped_column(default=0)
    issuer: Mapped[str | None] = mapped_column(String(ISSUER_LENGTH))  # this and the next three: None until issued
    sequence: Mapped[int | None] = mapped_column(BigInteger)  # from 1 for each issuer, without gaps
    number: Mapped[str | None] = mapped_column(String(64))  # as people see it
    issued_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    lines: Mapped[list["CreditNoteLine"]] = relationship(order_by="CreditNoteLine.number", lazy="raise", viewonly=True)


class CreditNoteLine(DocumentLine, Base):
    """A line of a credit note; below 0 where something is billed instead of what is taken back."""

    __tablename__ = "billing_credit_note_lines"
    __table_args__ = (ForeignKeyConstraint(["credit_note"], ["billing_credit_notes.id"]),)

    credit_note: Mapped[Id] = mapped_column(primary_key=True, sort_order=-1)


class CreditNoteNumbers(Base):
    """The last number that an issuer gave to a credit note. Belongs to no organization."""

    __tablename__ = "billing_credit_note_numbers"

    issuer: Mapped[str] = mapped_column(String(ISSUER_LENGTH), primary_key=True)
    last: Mapped[Count]


class Correction(Base):
    """Charges of an organization that are reversed or, by the rate card `card`, rated anew.

    `scope` is JSON corrections.selection.Scope. A worker goes through them in the order of admission, a part in each
    transaction: `part_ms` and `part_key` name the last charge that it looked at.
    """

    __tablename__ = "billing_corrections"
    __table_args__ = (
        Index("billing_corrections_key", "organization", "idempotency_key", unique=True),
        Index("billing_corrections_pending", "bucket", "applied_at_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    idempotency_key: Mapped[str] = mapped_column(String(128))
    bucket: Mapped[int] = mapped_column(Integer)
    scope: Mapped[str] = mapped_column(Text)
    card: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(96))
    requested_at_ms: Mapped[UnixMs]
    applied_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)
    part_ms: Mapped[int] = mapped_column(BigInteger, default=-1)
    part_key: Mapped[str] = mapped_column(String(96), default="")
    charges: Mapped[Count] = mapped_column(default=0)  # that were corrected so far, and by how much
    lowered: Mapped[Nano] = mapped_column(default=0)
    raised: Mapped[Nano] = mapped_column(default=0)
