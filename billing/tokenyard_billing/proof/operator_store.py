"""What only an operator may read: a request's whole story, alarms, dead letters, all across organizations."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from redis.asyncio import Redis
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import AttemptId
from tokenyard.core.usage import MeterClaims
from tokenyard.metering.stream import FIELD
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.charging.reports import Report, ReportWitness, load_reports
from tokenyard_billing.corrections.selection import restored_as, reversal_of, versions
from tokenyard_billing.invoicing.drafts import invoice_id
from tokenyard_billing.tables import Alarm, Charge, DeadLetter, OpenRequest, Reservation, Transaction, Waste

Listed = TypeVar("Listed", Alarm, DeadLetter)


class AttemptStory(msgspec.Struct, frozen=True):
    """One attempt: whose it was, what each witness said of it, and whether it is the charged one."""

    id: AttemptId
    claims: MeterClaims
    gateway: Report | None
    replica: Report | None
    hold_expired: Report | None
    charged: bool
    waste: Waste | None


class RequestStory(msgspec.Struct, frozen=True):
    """All that is known of a request or a training job. `journal` posted its charges or moved its reservation.

    `corrections` are the charges that undid one, or took its place.
    """

    id: str
    attempts: Sequence[AttemptStory]
    charge: Charge | None
    corrections: Sequence[Charge]
    waiting: OpenRequest | None
    reservation: Reservation | None
    journal: Sequence[Transaction]
    alarms: Sequence[Alarm]

    @property
    def state(self) -> str:
        return "charged" if self.charge else "waiting" if self.waiting else "reserved"

    @property
    def invoice(self) -> str | None:
        return invoice_id(self.charge.organization, self.charge.billed_in) if self.charge else None


class BillingOperatorStore:
    """Reads across organizations; changes nothing but that dead letters may be sent again."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis

    async def request(self, key: str) -> RequestStory:
        """Tell everything that is known of the request or training job `key`, or raise `NotFound`."""
        async with self._database.reading() as session:
            reports = (await load_reports(session, [key])).get(key, [])
            charge = await session.get(Charge, key)
            reservation = await session.get(Reservation, key)
            if not reports and charge is None and reservation is None:
                raise NotFound(f"No request {key}: it was never admitted, or its usage has not arrived yet.")
            corrections = await _corrections(session, key)
            attempts = sorted({report.attempt for report in reports})
            waste = {row.attempt: row for row in await session.scalars(select(Waste).where(Waste.request == key))}
            alarms = await session.scalars(select(Alarm).where(Alarm.subject.in_([key, *attempts])))
            return RequestStory(
                key,
                [_attempt(attempt, reports, charge, waste.get(attempt)) for attempt in attempts],
                charge,
                corrections,
                await session.get(OpenRequest, key),
                reservation,
                await _journal(session, [charge, *corrections] if charge else [], key),
                alarms.all(),
            )

    async def newest(self, table: type[Listed], after: str | None, limit: int) -> Sequence[Listed]:
        """Return at most `limit` alarms or dead letters, newest first; an unknown `after` raises `InvalidRequest`."""
        async with self._database.reading() as session:
            last = None if after is None else await session.get(table, after.partition("/")[::2])
            if last is None and after is not None:
                raise InvalidRequest(f"There is no {after} to go on from.", param="after")
            part = part_of_list(select(table), table.at_ms, table.id, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def send_again(self, stream: str, entry: str) -> None:
        """Put a dead letter back on its stream, after its cause was fixed; one that fails again is kept again."""
        async with self._database.reading() as session:
            found = await session.get(DeadLetter, (stream, entry))
        if found is None:
            raise NotFound(f"No dead letter {entry} of {stream}.")
        # Sent first: a crash in between sends it twice at most, and the ledger drops repeats.
        await self._redis.xadd(stream, {FIELD: found.event})
        async with self._database.transaction() as session:
            await session.execute(delete(DeadLetter).where(DeadLetter.stream == stream, DeadLetter.entry == entry))


def _attempt(attempt: AttemptId, reports: Sequence[Report], charge: Charge | None, waste: Waste | None) -> AttemptStory:
    said = {report.witness: report for report in reports if report.attempt == attempt}
    return AttemptStory(
        attempt,
        next(iter(said.values())).claims,
        said.get(ReportWitness.GATEWAY),
        said.get(ReportWitness.REPLICA),
        said.get(ReportWitness.HOLD),
        charge is not None and charge.attempt == attempt,
        waste,
    )


async def _corrections(session: AsyncSession, key: str) -> Sequence[Charge]:
    keys = versions(key)
    periods = select(Charge.billed_in).where(Charge.charge_key.in_(keys)).distinct()
    restored = [restored_as(one, period) for period in await session.scalars(periods) for one in keys[1:]]
    wanted = Charge.charge_key.in_([*keys[1:], *restored, *map(reversal_of, [*keys, *restored])])
    query = select(Charge).where(wanted).order_by(Charge.charged_at_ms, Charge.reverses.is_(None), Charge.charge_key)
    return (await session.scalars(query)).all()


async def _journal(session: AsyncSession, charges: Sequence[Charge], key: str) -> Sequence[Transaction]:
    wanted = (Transaction.reference == key) & Transaction.template.in_(("reserve", "close_reservation"))
    # They posted other charges of their batches too.
    wanted |= Transaction.id.in_({charge.transaction for charge in charges} - {None})
    query = select(Transaction).where(wanted).options(selectinload(Transaction.entries))
    return (await session.scalars(query.order_by(Transaction.posted_at_ms))).all()
