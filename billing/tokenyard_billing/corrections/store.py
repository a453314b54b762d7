"""One organization's credit notes, once they are issued."""

from collections.abc import Sequence

from sqlalchemy import Select, select
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
        self, organization: OrganizationId, *, invoice: str | None = None, after: str | None = None, limit: int
    ) -> Sequence[CreditNote]:
        """Return at most `limit` credit notes with lines, the newest first; an unknown `after`: `InvalidRequest`."""
        query = issued(invoice).where(CreditNote.organization == organization)
        return await page_of(self._database, query, after=after, limit=limit)

    async def credit_note(self, organization: OrganizationId, identity: str) -> CreditNote:
        """Return one with its lines, or raise `NotFound`."""
        return await one_of(self._database, issued().where(CreditNote.organization == organization), identity)


def issued(invoice: str | None = None) -> Select[CreditNote]:
    """Return a query of credit notes, of an invoice or of all."""
    query = select(CreditNote).where(CreditNote.issued_at_ms.is_not(None))
    return query if invoice is None else query.where(CreditNote.invoice == invoice)


async def page_of(
    database: Database, query: Select[CreditNote], *, after: str | None, limit: int
) -> Sequence[CreditNote]:
    """Return at most `limit` of them with lines, the newest first; an unknown `after` raises `InvalidRequest`."""
    async with database.reading() as session:
        last = None if after is None else await session.scalar(query.where(CreditNote.id == after))
        if last is None and after is not None:
            raise InvalidRequest(f"No such credit note: {after}", param="after")
        part = part_of_list(query, CreditNote.begun_at_ms, CreditNote.id, after=last, limit=limit)
        return (await session.scalars(part.options(selectinload(CreditNote.lines)))).all()


async def one_of(database: Database, query: Select[CreditNote], identity: str) -> CreditNote:
    """Return one of them with its lines, or raise `NotFound`."""
    one = query.where(CreditNote.id == identity).options(selectinload(CreditNote.lines))
    async with database.reading() as session:
        found = await session.scalar(one)
    if found is None:
        raise NotFound(f"No such credit note: {identity}")
    return found
