"""What only an operator may read: a request's whole story, alarms, dead events, all across organizations."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.errors import NotFound
from tokenyard.storage.database import Base, Database
from tokenyard_billing.charging.dead_letters import send_again
from tokenyard_billing.invoicing.invoices import invoice_id
from tokenyard_billing.tables import (
    Alarm,
    Charge,
    DeadEvent,
    Entry,
    OpenRequest,
    Reservation,
    Transaction,
    UsageReport,
    Waste,
)

Row = dict[str, Any]


class BillingOperatorStore:
    """Reads across organizations; changes nothing but that dead events may be sent again."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis

    async def request(self, charge_key: str) -> Row:
        """Tell everything that is known of a request or a training job.

        Raises:
            NotFound: nothing is.
        """
        async with self._database.reading() as session:
            reports = await _rows(session, UsageReport, UsageReport.request == charge_key)
            charge = await session.get(Charge, charge_key)
            waiting = await session.get(OpenRequest, charge_key)
            reservation = await session.get(Reservation, charge_key)
            if not reports and charge is None and reservation is None:
                raise NotFound(f"No request {charge_key}: it was never admitted, or its usage has not arrived yet.")
            waste = await _rows(session, Waste, Waste.request == charge_key)
            attempts = sorted({report["attempt"] for report in reports})
            alarms = await _rows(session, Alarm, Alarm.subject.in_([charge_key, *attempts]))
            journal = await _journal(session, charge, charge_key)
        return {
            "object": "request",
            "id": charge_key,
            "state": "charged" if charge else "waiting" if waiting else "reserved",
            "attempts": [_attempt(attempt, reports, waste, charge) for attempt in attempts],
            "charge": _row(charge) if charge else None,
            "waiting": _row(waiting) if waiting else None,
            "reservation": _row(reservation) if reservation else None,
            "journal": journal,
            "invoice": invoice_id(charge.organization, charge.period) if charge else None,
            "alarms": alarms,
        }

    async def alarms(self, limit: int) -> list[Row]:
        """Return the newest alarms."""
        async with self._database.reading() as session:
            found = await session.scalars(select(Alarm).order_by(Alarm.at_ms.desc()).limit(limit))
            return [_row(alarm) for alarm in found]

    async def dead_events(self, limit: int) -> list[Row]:
        """Return the newest dead events."""
        async with self._database.reading() as session:
            found = await session.scalars(select(DeadEvent).order_by(DeadEvent.at_ms.desc()).limit(limit))
            return [_row(event) for event in found]

    async def send_again(self, stream: str, entry: str) -> None:
        """Put a dead event back on its stream, after its cause was mended.

        Raises:
            NotFound: there is no such dead event.
        """
        await send_again(self._database, self._redis, stream, entry)


def _attempt(attempt: str, reports: Sequence[Row], waste: Sequence[Row], charge: Charge | None) -> Row:
    said = {report["witness"]: report for report in reports if report["attempt"] == attempt}
    return {
        "id": attempt,
        "gateway": said.get("gateway"),
        "replica": said.get("replica"),
        "hold_expired": said.get("hold"),
        "charged": charge is not None and charge.attempt == attempt,
        "waste": next((row for row in waste if row["attempt"] == attempt), None),
    }


async def _journal(session: AsyncSession, charge: Charge | None, key: str) -> list[Row]:
    """Return the transactions that posted the charge (with others of its batch) or moved a reservation, with lines."""
    posted = (Transaction.reference == key) & Transaction.template.in_(("reserve", "close_reservation"))
    if charge is not None and charge.transaction is not None:
        posted |= Transaction.id == charge.transaction
    transactions = await _rows(session, Transaction, posted)
    for transaction in transactions:
        transaction["entries"] = await _rows(session, Entry, Entry.transaction == transaction["id"])
    return transactions


async def _rows(session: AsyncSession, table: type[Base], condition: Any) -> list[Row]:
    return [_row(found) for found in await session.scalars(select(table).where(condition))]


def _row(found: Base) -> Row:
    return {column.key: getattr(found, column.key) for column in inspect(found).mapper.column_attrs}
