"""One organization's invoices and credit notes as documents."""

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard_billing.documents.credit_note import CreditNoteBill
from tokenyard_billing.documents.document import Bill
from tokenyard_billing.invoice_tables import CreditNote, Invoice
from tokenyard_billing.invoicing.store import WHOLE
from tokenyard_billing.parties.snapshots import current_parties, kept_parties

MAX_LINES = 10_000


class BillStore:
    """`issuer` is who would issue a draft: its name in the settings."""

    def __init__(self, database: Database, issuer: str) -> None:
        self._database = database
        self._issuer = issuer

    async def bill(self, organization: OrganizationId, invoice: str) -> Bill:
        """Return an invoice of the organization with its parties.

        Raises:
            NotFound: it has no such invoice.
            InvalidRequest: the invoice is too long for a document.
        """
        query = select(Invoice).where(Invoice.organization == organization, Invoice.id == invoice).options(*WHOLE)
        async with self._database.reading() as session:
            found = await session.scalar(query)
            if found is None:
                raise NotFound(f"No such invoice: {invoice}")
            return await bill_of(session, found, self._issuer)

    async def credit_note(self, organization: OrganizationId, credit_note: str) -> CreditNoteBill:
        """Return an issued credit note of the organization with its parties; raises as `bill`."""
        async with self._database.reading() as session:
            return await credit_note_bill(session, one_credit_note(credit_note, organization))


async def bill_of(session: AsyncSession, invoice: Invoice, issuer: str) -> Bill:
    """Return the bill of an invoice: with the parties of now while it is a draft, else with those of its issue.

    Raises:
        InvalidRequest: it has too many lines.
    """
    if len(invoice.lines) > MAX_LINES:
        raise InvalidRequest(f"{invoice.id} has more than {MAX_LINES:,} lines; read them from the list of invoices.")
    if invoice.issued_at_ms is None:
        parties = await current_parties(session, OrganizationId(invoice.organization), issuer)
    else:
        parties = await kept_parties(session, invoice.id)
    return Bill(invoice, parties, invoice.issuer or issuer)


def one_credit_note(identity: str, organization: OrganizationId | None = None) -> Select[CreditNote]:
    """Return a query of one that was issued, of an organization or of any."""
    query = select(CreditNote).where(CreditNote.id == identity, CreditNote.issued_at_ms.is_not(None))
    return query if organization is None else query.where(CreditNote.organization == organization)


async def credit_note_bill(session: AsyncSession, query: Select[CreditNote]) -> CreditNoteBill:
    """Return the credit note that is asked for, with its invoice and its parties; raises as `BillStore.bill`."""
    note = await session.scalar(query.options(selectinload(CreditNote.lines)))
    if note is None:
        raise NotFound("No such credit note.")
    if len(note.lines) > MAX_LINES:
        raise InvalidRequest(f"{note.id} has more than {MAX_LINES:,} lines; read them from the list of credit notes.")
    invoice = await session.get_one(Invoice, note.invoice)
    return CreditNoteBill(note, invoice, await kept_parties(session, note.id))
