"""Invoices and credit notes of all organizations as documents."""

from tokenyard.core.errors import NotFound
from tokenyard.storage.database import Database
from tokenyard_billing.documents.credit_note import CreditNoteBill
from tokenyard_billing.documents.document import Bill
from tokenyard_billing.documents.store import bill_of, credit_note_bill, one_credit_note
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.store import WHOLE


class BillOperatorStore:
    """`issuer` is who would issue a draft: its name in the settings."""

    def __init__(self, database: Database, issuer: str) -> None:
        self._database = database
        self._issuer = issuer

    async def bill(self, invoice: str) -> Bill:
        """Return an invoice with its parties; raises as `BillStore.bill`."""
        async with self._database.reading() as session:
            found = await session.get(Invoice, invoice, options=WHOLE)
            if found is None:
                raise NotFound(f"No such invoice: {invoice}")
            return await bill_of(session, found, self._issuer)

    async def credit_note(self, credit_note: str) -> CreditNoteBill:
        """Return an issued credit note with its parties; raises as `BillStore.bill`."""
        async with self._database.reading() as session:
            return await credit_note_bill(session, one_credit_note(credit_note))
