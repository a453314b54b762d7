"""Sets money aside for training jobs: first held in Redis, then moved in the ledger, which lets the hold go."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum

from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import budgets_of, monthly, wallet
from tokenyard.core.clock import Clock
from tokenyard.core.errors import BudgetInUse, InvalidRequest, QuotaExceeded, Unavailable
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.projections import SpendingChanges
from tokenyard_billing.ports import BudgetHolds, SpendingLimits
from tokenyard_billing.tables import Charge, Reservation
from tokenyard_billing.wallets.changes import BudgetChanges, write_changes

TIDY_INTERVAL_S = 30.0
ABANDONED_MS = 60_000


class ReservationState(StrEnum):
    """`HOLDING`: only Redis may hold it. `OPEN`: in the ledger. `CHARGED`: the job's charge closed it."""

    HOLDING = "holding"
    OPEN = "open"
    CHARGED = "charged"


class JobReservations:
    """Every step is written down before the next, so that whoever dies in between leaves nothing held for ever."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: TransactionalOutbox,
        holds: BudgetHolds,
        limits: SpendingLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._holds = holds
        self._limits = limits
        self._clock = clock

    def loop(self) -> Loop:
        """Return the loop that finishes what a process left half done."""
        return Loop("tidy reservations", self.tidy, TIDY_INTERVAL_S)

    async def reserve(
        self,
        organization: OrganizationId,
        project: ProjectId,
        key: ApiKeyId,
        amounts: Mapping[JobId, NanoDollars],
    ) -> None:
        """Set its amount aside for each job, or nothing for any of them, on the wallet and on every monthly limit.

        Again for the same jobs: nothing more.

        Raises:
            QuotaExceeded: a budget does not cover them.
            BudgetInUse: a budget would cover them, were it not for requests under way.
            Unavailable: Redis is down or not loaded yet.
        """
        if min(amounts.values()) < 0:
            raise InvalidRequest("A reservation cannot be negative.")
        now_ms = self._clock.now_ms()
        limits = await self._limits.monthly_limits(organization, project, key)
        budgets = budgets_of(organization, limits, now_ms)
        rows = [
            {
                "job": job,
                "organization": organization,
                "project": project,
                "key": key,
                "amount": amount,
                "budgets": json.dumps([budget.name for budget in budgets]),
                "state": ReservationState.HOLDING.value,
                "reserved_at_ms": now_ms,
                "closed_at_ms": None,
            }
            for job, amount in amounts.items()
        ]
        async with self._database.transaction() as session:
            await bulk.insert_new(session, Reservation, rows)
            found = list(await session.scalars(_half_done(list(amounts))))
        if not found:
            return
        jobs = [JobId(row.job) for row in found]
        try:
            # One hold for all: of several, the later ones would find the budget in use by the first.
            await self._holds.hold(organization, jobs[0], budgets, NanoDollars(sum(row.amount for row in found)))
            await self._post(organization, jobs)
        except (QuotaExceeded, BudgetInUse):
            await self._abandon(organization, jobs)
            raise

    async def lower(self, organization: OrganizationId, job: JobId, amount: NanoDollars) -> None:
        """Keep only `amount` aside for `job` where it is less than now. Again, or after the job's charge: nothing."""
        async with self._database.transaction() as session:
            is_open = Reservation.job == job, Reservation.state == ReservationState.OPEN
            row = await session.scalar(select(Reservation).where(*is_open).with_for_update())
            if row is None or row.organization != organization or not 0 <= amount < row.amount:
                return
            excess = NanoDollars(row.amount - amount)
            await journal.post(
                session, [journal.reservation_lowered(organization, excess, reference=job)], self._clock.now_ms()
            )
            spending = SpendingChanges()
            spending.add(_scopes(row), row.reserved_at_ms, reserved=-excess)
            await spending.write(session)
            row.amount = amount
            changes = BudgetChanges(organization)
            changes.add(_budgets(row))
            messages = await write_changes(session, [changes], self._clock.now_ms())
        await self._outbox.try_to_carry(messages)

    async def tidy(self) -> None:
        """Abandon what was left half done: its process died before the ledger had it."""
        query = select(Reservation.organization, Reservation.job).where(
            Reservation.state == ReservationState.HOLDING,
            Reservation.reserved_at_ms < self._clock.now_ms() - ABANDONED_MS,
        )
        async with self._database.reading() as session:
            rows = (await session.execute(query.limit(100))).all()
        for organization, job in rows:
            await self._abandon(OrganizationId(organization), [JobId(job)])

    async def _post(self, organization: OrganizationId, jobs: Sequence[JobId]) -> None:
        """Move the money in the ledger, which gives the hold back; from here on each job's charge alone closes its."""
        async with self._database.transaction() as session:
            moved = [row for row in await self._opened(session, jobs) if row.amount]
            changes = BudgetChanges(organization, released=[jobs[0]])
            if moved:
                await self._move(session, organization, moved)
            for row in moved:
                changes.add(_budgets(row))
            messages = await write_changes(session, [changes], self._clock.now_ms())
        await self._outbox.try_to_carry(messages)

    async def _opened(self, session: AsyncSession, jobs: Sequence[JobId]) -> Sequence[Reservation]:
        rows = list(await session.scalars(_half_done(jobs).with_for_update()))
        # The charge of a job closes its reservation once, and locks it: who comes after that opens none.
        charged = select(Charge.charge_key).where(Charge.charge_key.in_(jobs)).limit(1)
        if len(rows) < len(jobs) or await session.scalar(charged) is not None:
            raise Unavailable("The reservation took too long; try again.")  # the lease ends its hold
        for row in rows:
            row.state = ReservationState.OPEN.value
        return rows

    async def _move(self, session: AsyncSession, organization: OrganizationId, rows: Sequence[Reservation]) -> None:
        postings = [journal.money_reserved(organization, NanoDollars(row.amount), reference=row.job) for row in rows]
        await journal.post(session, postings, self._clock.now_ms())
        # Read after the posting, which has locked the balance: nobody else takes the same money meanwhile.
        balances = await journal.balances(session, [organization], journal.AccountName.WALLET)
        if balances[organization][0] < 0:
            raise QuotaExceeded("The organization's credit does not cover the cost of this job.")
        spending = SpendingChanges()
        for row in rows:
            spending.add(_scopes(row), row.reserved_at_ms, reserved=NanoDollars(row.amount))
        await spending.write(session)

    async def _abandon(self, organization: OrganizationId, jobs: Sequence[JobId]) -> None:
        half_done = delete(Reservation).where(Reservation.job.in_(jobs), Reservation.state == ReservationState.HOLDING)
        async with self._database.transaction() as session:
            gone = list(await session.scalars(half_done.returning(Reservation.job)))  # one of them has the hold
            changes = [BudgetChanges(organization, released=gone)] if gone else []
            messages = await write_changes(session, changes, self._clock.now_ms())
        await self._outbox.try_to_carry(messages)


def _half_done(jobs: Sequence[JobId]) -> Select[Reservation]:
    """Return a query of those that only Redis may hold, always in one order, as they are locked in it."""
    half_done = Reservation.job.in_(jobs), Reservation.state == ReservationState.HOLDING
    return select(Reservation).where(*half_done).order_by(Reservation.job)


def _budgets(row: Reservation) -> list[str]:
    months = (monthly(scope, row.reserved_at_ms) for scope in _scopes(row))
    return [wallet(OrganizationId(row.organization)), *months]


def _scopes(row: Reservation) -> tuple[str, str, str]:
    return row.organization, row.project, row.key
