"""Invoices of all organizations as documents."""

from tokenyard.core.errors import NotFound
from tokenyard.storage.database import Database
from tokenyard_billing.documents.document import Bill
from tokenyard_billing.documents.store import WHOLE, bill_of
from tokenyard_billing.invoice_tables import Invoice


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
