"""Reads what an organization recorded on a day as canonical lines, a bounded part at a time."""

from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any, TypeVarTuple

import msgspec
from sqlalchemy import ColumnElement, Row, Select, collate, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard_billing.sealing.canonical import (
    CHARGE_FIELDS,
    ENTRY_FIELDS,
    TRANSACTION_FIELDS,
    charge_line,
    day_header,
    leaf_statement,
    transaction_line,
)
from tokenyard_billing.sealing.days import end_ms, start_ms
from tokenyard_billing.sealing.merkle import leaf_hash
from tokenyard_billing.sealing.tables import SealedPart
from tokenyard_billing.tables import Charge, Entry, Transaction

AT_ONCE = 1_000  # rows in memory
Columns = TypeVarTuple("Columns")
_CHARGE = [getattr(Charge, name) for name in CHARGE_FIELDS]
_HEAD = [getattr(Transaction, name) for name in TRANSACTION_FIELDS]
_ENTRY = [getattr(Entry, name) for name in ENTRY_FIELDS]


class DayDigest(msgspec.Struct, frozen=True):
    """What an organization's day comes to."""

    organization: str
    charges: int
    transactions: int
    digest: str

    @property
    def leaf(self) -> bytes:
        counts = {"charges": self.charges, "transactions": self.transactions}
        return leaf_hash(leaf_statement(self.organization, **counts, digest=self.digest))


def bytewise(session: AsyncSession, column: InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Return a text to order by its bytes, whatever the language of the database is."""
    return collate(column, "C") if session.get_bind().dialect.name == "postgresql" else column.expression


def recorded_on(at_ms: InstrumentedAttribute[int], day: str) -> ColumnElement[bool]:
    return (at_ms >= start_ms(day)) & (at_ms < end_ms(day))


async def digest_of(session: AsyncSession, day: str, organization: str) -> DayDigest:
    """Return the digest of an organization's day: of its header, its charges and its transactions, in this order."""
    digest = sha256(day_header(day, organization))

    async def add(read: DayRead) -> int:
        count = 0
        async for lines in read(session, day, organization):
            digest.update(b"".join(lines))
            count += len(lines)
        return count

    charges, transactions = [await add(read) for read in DAY_READS]
    return DayDigest(organization, charges, transactions, digest.hexdigest())


async def charge_lines(session: AsyncSession, day: str, organization: str) -> AsyncIterator[list[bytes]]:
    """Yield the lines of charges, in the order of their recording and, of one moment, of the bytes of their keys."""
    query = (
        select(*_CHARGE)
        .where(Charge.organization == organization, recorded_on(Charge.charged_at_ms, day))
        .order_by(Charge.charged_at_ms, bytewise(session, Charge.charge_key))
    )
    async for part in parts_of(session, query):
        yield list(map(charge_line, part))


async def transaction_lines(session: AsyncSession, day: str, organization: str) -> AsyncIterator[list[bytes]]:
    """Yield the lines of journal transactions, ordered as charges are; entries are in the order of their numbers."""
    own = (Entry.transaction == Transaction.id) & (Entry.organization == Transaction.organization)
    query = (
        select(*_HEAD, *_ENTRY)
        .join(Entry, own, isouter=True)  # one that lost its entries is still there
        .where(Transaction.organization == organization, recorded_on(Transaction.posted_at_ms, day))
        .order_by(Transaction.posted_at_ms, bytewise(session, Transaction.id), Entry.number)
    )
    cut = len(_HEAD)
    rest: list[Sequence[Any]] = []
    async for part in parts_of(session, query):
        rows = [*rest, *part]
        *whole, (_, last) = [(head, list(group)) for head, group in groupby(rows, key=lambda row: tuple(row[:cut]))]
        yield [_transaction(head, group, cut) for head, group in whole]
        rest = last  # its entries may go on in the next part
    if rest:
        yield [_transaction(rest[0][:cut], rest, cut)]


def _transaction(head: Sequence[Any], rows: Sequence[Sequence[Any]], cut: int) -> bytes:
    return transaction_line(head, [row[cut:] for row in rows if row[cut] is not None])


async def parts_of(session: AsyncSession, query: Select[*Columns]) -> AsyncIterator[Sequence[Row[*Columns]]]:
    """Yield the rows of a query, at most `AT_ONCE` of them at a time."""
    result = await session.stream(query, execution_options={"yield_per": AT_ONCE})
    async for part in result.partitions():
        yield part


async def sealed_parts(session: AsyncSession, day: str) -> list[DayDigest]:
    """Return the stored parts of a day in the order of the bytes of organizations: that of leaves."""
    columns = SealedPart.organization, SealedPart.charges, SealedPart.transactions, SealedPart.digest
    query = select(*columns).where(SealedPart.day == day).order_by(bytewise(session, SealedPart.organization))
    return [DayDigest(*row) for row in await session.execute(query)]


DayRead = Callable[[AsyncSession, str, str], AsyncIterator[list[bytes]]]
DAY_READS: Sequence[DayRead] = (charge_lines, transaction_lines)
"""What follows the header of a day, in this order."""
