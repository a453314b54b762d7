"""Tables of who bills and who is billed. Times are unix milliseconds."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Id, Json, UnixMs
from tokenyard.storage.database import Base
from tokenyard_billing.invoice_tables import ISSUER_LENGTH


class BillingDetails(Base):
    """How an organization is named on its invoices: `details` is a `Buyer`."""

    __tablename__ = "billing_details"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    details: Mapped[Json]
    changed_at_ms: Mapped[UnixMs]


class IssuerDetails(Base):
    """How an issuer is named on the invoices it issues: `details` is a `Seller`. Belongs to no organization."""

    __tablename__ = "billing_issuers"

    issuer: Mapped[str] = mapped_column(String(ISSUER_LENGTH), primary_key=True)
    details: Mapped[Json]
    changed_at_ms: Mapped[UnixMs]


class DocumentParties(Base):
    """Both as they were when a document was issued, {} where they were not stated. Never updated, never deleted.

    `document` is the id of an invoice or of a credit note.
    """

    __tablename__ = "billing_document_parties"

    document: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    seller: Mapped[Json]
    buyer: Mapped[Json]
