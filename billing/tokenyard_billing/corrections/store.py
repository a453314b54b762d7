"""Credit notes, once they are issued."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.invoice_tables import CreditNote


class CreditNoteStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def credit_notes(
        self,
        organization: OrganizationId | None,
        *,
        invoice: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[CreditNote]:
        """Return at most `limit` credit notes with lines, of one organization or of all, the newest first.

        Raises:
            InvalidRequest: `after` is none of them.
        """
        query = select(CreditNote).where(CreditNote.issued_at_ms.is_not(None))
        if organization is not None:
            query = query.where(CreditNote.organization == organization)
        if invoice is not None:
            query = query.where(CreditNote.invoice == invoice)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(CreditNote.id == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such credit note: {after}", param="after")
            part = part_of_list(query, CreditNote.begun_at_ms, CreditNote.id, after=last, limit=limit)
            return (await session.scalars(part.options(selectinload(CreditNote.lines)))).all()

    async def credit_note(self, identity: str, organization: OrganizationId | None = None) -> CreditNote:
        """Return one with its lines, or raise `NotFound`, also where it is not the organization's."""
        query = select(CreditNote).where(CreditNote.id == identity, CreditNote.issued_at_ms.is_not(None))
        if organization is not None:
            query = query.where(CreditNote.organization == organization)
        async with self._database.reading() as session:
            found = await session.scalar(query.options(selectinload(CreditNote.lines)))
        if found is None:
            raise NotFound(f"No such credit note: {identity}")
        return found
