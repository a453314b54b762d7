"""Reservations: what is set aside for training jobs is in the ledger, and ends with its job."""

from collections.abc import AsyncIterator

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import JobId
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.ports import UnfinishedJobs
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Balance, Charge, Reservation
from tokenyard_billing.wallets.reservations import ReservationState

PAGE = 500
HALF_DONE_MS = 5 * 60_000  # what died half done is abandoned within two minutes
ORPHANED_MS = 3_600_000  # so long the event of a job that ended may be on its way to the ledger


async def check_reservations(session: AsyncSession, now_ms: int) -> list[Difference]:
    """Compare open reservations with the ledger, and each one's state with its job's charge."""
    is_open = Reservation.state == ReservationState.OPEN
    charged = exists().where(Charge.charge_key == Reservation.job)
    sides = (
        Side("open reservations", select(Reservation.organization, Reservation.amount).where(is_open)),
        Side("ledger", select(Balance.organization, Balance.amount).where(Balance.account == AccountName.RESERVED)),
    )
    found = await compare(session, "reserved_not_reservations", *sides)
    wrong = {
        ("reservation_not_closed", "open, and its job is charged"): (is_open, charged),
        ("reservation_without_charge", "charged, and its job has no charge"): (
            Reservation.state == ReservationState.CHARGED,
            ~charged,
        ),
        ("reservation_half_done", "neither in the ledger nor abandoned"): (
            Reservation.state == ReservationState.HOLDING,
            Reservation.reserved_at_ms < now_ms - HALF_DONE_MS,
        ),
    }
    for (name, detail), which in wrong.items():
        query = select(Reservation.job, Reservation.organization).where(*which).limit(EXAMPLES)
        found += [broken(name, job, f"{owner}: {detail}") for job, owner in await session.execute(query)]
    return found


async def check_orphans(session: AsyncSession, jobs: UnfinishedJobs, now_ms: int) -> list[Difference]:
    """Name open reservations whose jobs ended long ago, or never were: nothing will close them."""
    found: list[Difference] = []
    since_ms = now_ms - ORPHANED_MS
    async for page in _open_since(session, since_ms):
        alive = set(await jobs.unfinished(list(page), since_ms=since_ms))
        found += [
            broken("reservation_orphaned", job, f"{organization}: its job has ended, and was not charged")
            for job, organization in page.items()
            if job not in alive
        ]
        if len(found) >= EXAMPLES:
            break
    return found[:EXAMPLES]


async def _open_since(session: AsyncSession, at_ms: int) -> AsyncIterator[dict[JobId, str]]:
    """Yield the organizations, by job, of reservations that are open since before `at_ms`."""
    last = ""
    while True:
        query = select(Reservation.job, Reservation.organization).where(
            Reservation.state == ReservationState.OPEN, Reservation.reserved_at_ms < at_ms, Reservation.job > last
        )
        rows = await session.execute(query.order_by(Reservation.job).limit(PAGE))
        page = {JobId(job): organization for job, organization in rows}
        if page:
            yield page
        if len(page) < PAGE:
            return
        last = max(page)
