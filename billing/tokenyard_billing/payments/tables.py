"""Tables of payments. Money is nano-dollars; times are unix milliseconds; every row belongs to one organization."""

from sqlalchemy import BigInteger, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, Nano, UnixMs
from tokenyard.storage.database import Base

PROVIDER_ID_LENGTH = 255
_LIVE = text("invoice IS NOT NULL AND state IN ('created', 'processing')")
_CHARGED = text("charge IS NOT NULL")
_PAGED = text("checkout IS NOT NULL")


class Payment(Base):
    """Money that a provider is to take: of an invoice, or, where that is None, for credit. Written before it is asked.

    `state` is created, processing, succeeded, failed or cancelled; the last three are final. `charge` is the
    provider's id of it, without which no money can have moved, and `checkout` that of the page on which it is paid,
    where no stored `method` is charged. Of what succeeded, `amount` = `settled` (of the invoice) + `credited`.
    """

    __tablename__ = "billing_payments"
    __table_args__ = (
        Index("billing_payments_key", "organization", "idempotency_key", unique=True),
        Index("billing_payments_organization", "organization", "created_at_ms", "id"),
        Index("billing_payments_due", "state", "bucket", "retry_at_ms"),
        Index("billing_payments_invoice", "invoice"),
        Index("billing_payments_live", "invoice", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index("billing_payments_charge", "charge", unique=True, sqlite_where=_CHARGED, postgresql_where=_CHARGED),
        Index("billing_payments_checkout", "checkout", unique=True, sqlite_where=_PAGED, postgresql_where=_PAGED),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    bucket: Mapped[int] = mapped_column(Integer)
    invoice: Mapped[str | None] = mapped_column(String(96))
    amount: Mapped[Nano]
    provider: Mapped[str] = mapped_column(String(16))
    customer: Mapped[str] = mapped_column(String(PROVIDER_ID_LENGTH))
    method: Mapped[str | None] = mapped_column(String(PROVIDER_ID_LENGTH))
    charge: Mapped[str | None] = mapped_column(String(PROVIDER_ID_LENGTH))
    checkout: Mapped[str | None] = mapped_column(String(PROVIDER_ID_LENGTH))
    checkout_url: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    failure_code: Mapped[str] = mapped_column(String(64), default="")
    failure_message: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[Count] = mapped_column(default=0)  # how often the provider was asked in vain
    settled: Mapped[Nano] = mapped_column(default=0)
    credited: Mapped[Nano] = mapped_column(default=0)
    idempotency_key: Mapped[str] = mapped_column(String(128))
    actor: Mapped[str] = mapped_column(String(96))
    created_at_ms: Mapped[UnixMs]
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)
    finished_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class PaymentCustomer(Base):
    """Who an organization is to a provider, and which of its methods is charged; None: none is.

    `method_at_ms` is when that was last chosen: a new one is tried at once.
    """

    __tablename__ = "billing_payment_customers"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(String(16), primary_key=True)
    customer: Mapped[str] = mapped_column(String(PROVIDER_ID_LENGTH))
    bucket: Mapped[int] = mapped_column(Integer)
    default_method: Mapped[str | None] = mapped_column(String(PROVIDER_ID_LENGTH))
    method_at_ms: Mapped[UnixMs] = mapped_column(default=0)
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)


class PaymentSetup(Base):
    """A provider's page on which a method is set up. `state` is open, completed or expired."""

    __tablename__ = "billing_payment_setups"
    __table_args__ = (Index("billing_payment_setups_due", "state", "bucket", "retry_at_ms"),)

    checkout: Mapped[str] = mapped_column(String(PROVIDER_ID_LENGTH), primary_key=True)
    organization: Mapped[Id]
    bucket: Mapped[int] = mapped_column(Integer)
    provider: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    created_at_ms: Mapped[UnixMs]
    retry_at_ms: Mapped[UnixMs]
