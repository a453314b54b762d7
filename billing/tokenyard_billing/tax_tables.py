"""Tables of taxes: what jurisdictions take, and in which one each organization pays. Times are unix milliseconds."""

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Id, UnixMs
from tokenyard.storage.database import Base
from tokenyard_billing.invoice_tables import JURISDICTION_LENGTH, TAX_NAME_LENGTH


class TaxRate(Base):
    """What a jurisdiction takes from a moment on, until its next row. Never updated, never deleted.

    Belongs to no organization.
    """

    __tablename__ = "billing_tax_rates"
    __table_args__ = (Index("billing_tax_rates_start", "jurisdiction", "effective_from_ms", unique=True),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    jurisdiction: Mapped[str] = mapped_column(String(JURISDICTION_LENGTH))  # DE, or US-CA
    name: Mapped[str] = mapped_column(String(TAX_NAME_LENGTH))  # VAT
    rate: Mapped[int] = mapped_column(Integer)  # millionths of the amount
    inclusive: Mapped[bool]  # prices hold it already
    effective_from_ms: Mapped[UnixMs]
    published_at_ms: Mapped[UnixMs]
    published_by: Mapped[str] = mapped_column(String(96))


class TaxProfileChange(Base):
    """What the organization uses in `since_period` and later is taxed so; before its first change nothing is.

    The jurisdiction is empty where no tax is paid. `exemption` is none, exempt or reverse_charge.
    """

    __tablename__ = "billing_tax_profiles"
    __table_args__ = (Index("billing_tax_profiles_jurisdiction", "jurisdiction"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    since_period: Mapped[str] = mapped_column(String(7), primary_key=True)  # YYYY-MM
    jurisdiction: Mapped[str] = mapped_column(String(JURISDICTION_LENGTH))
    exemption: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)  # of the exemption: a certificate's number, or the like
    changed_at_ms: Mapped[UnixMs]
