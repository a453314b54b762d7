"""Sets money aside for training jobs: first held in Redis, then moved in the ledger, then the hold is dropped."""

import json
import logging
from enum import StrEnum

from redis.exceptions import RedisError
from sqlalchemy import Update, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import BudgetUpdate, monthly, wallet
from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, QuotaExceeded, Unavailable
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.projections import SpendingChanges
from tokenyard_billing.ports import BudgetHolds, LiveBudgets, SpendingLimits
from tokenyard_billing.tables import Reservation
from tokenyard_billing.wallets.budgets import SqlBudgets

_LOG = logging.getLogger(__name__)
TIDY_INTERVAL_S = 30.0
ABANDONED_MS = 60_000


class ReservationState(StrEnum):
    """`HOLDING`: only Redis may hold it. `POSTED`: in the ledger, Redis may hold it too. `OPEN`: in the ledger alone.

    `CHARGED`: the job's charge closed it.
    """

    HOLDING = "holding"
    POSTED = "posted"
    OPEN = "open"
    CHARGED = "charged"


class JobReservations:
    """Every step is written down before the next, so that whoever dies in between leaves nothing held for ever."""

    def __init__(
        self,
        *,
        database: Database,
        budgets: SqlBudgets,
        live: LiveBudgets,
        holds: BudgetHolds,
        limits: SpendingLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._budgets = budgets
        self._live = live
        self._holds = holds
        self._limits = limits
        self._clock = clock

    def loop(self) -> Loop:
        """Return the loop that finishes what a process left half done."""
        return Loop("tidy reservations", self.tidy, TIDY_INTERVAL_S)

    async def reserve(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId, job: JobId, amount: NanoDollars
    ) -> None:
        """Set `amount` aside for `job`, on the wallet and on every monthly limit. Again for the same job: nothing more.

        Raises:
            QuotaExceeded: a budget does not cover it.
            Unavailable: Redis is down or not loaded yet.
        """
        if amount < 0:
            raise InvalidRequest("A reservation cannot be negative.")
        now_ms = self._clock.now_ms()
        limited = await self._limits.monthly(organization)
        scopes = (scope for scope in (key, project, organization) if scope in limited)
        budgets = (wallet(organization), *(monthly(scope, now_ms) for scope in scopes))
        row = {
            "job": job,
            "organization": organization,
            "project": project,
            "key": key,
            "amount": amount,
            "budgets": json.dumps(budgets),
            "state": ReservationState.HOLDING.value,
            "reserved_at_ms": now_ms,
            "closed_at_ms": None,
        }
        async with self._database.transaction() as session:
            await bulk.insert_new(session, Reservation, [row])
            found = await session.get_one(Reservation, job)
        if found.state != ReservationState.HOLDING:
            return
        try:
            await self._holds.hold(organization, job, tuple(json.loads(found.budgets)), NanoDollars(found.amount))
            await self._post(organization, job)
        except QuotaExceeded:
            await self._abandon(organization, job)
            raise
        try:
            await self._finish(organization, job)
        except (RedisError, Unavailable) as error:  # the ledger has it; `tidy` drops the hold
            _LOG.warning("the hold of job %s is dropped later: %s", job, error)

    async def tidy(self) -> None:
        """Finish or abandon what was left half done."""
        query = select(Reservation.organization, Reservation.job, Reservation.state).where(
            (Reservation.state == ReservationState.POSTED)
            | (
                (Reservation.state == ReservationState.HOLDING)
                & (Reservation.reserved_at_ms < self._clock.now_ms() - ABANDONED_MS)
            )
        )
        async with self._database.reading() as session:
            rows = (await session.execute(query.limit(100))).all()
        for organization, job, state in rows:
            if state == ReservationState.POSTED:
                await self._finish(OrganizationId(organization), JobId(job))
            else:
                await self._abandon(OrganizationId(organization), JobId(job))

    async def _post(self, organization: OrganizationId, job: JobId) -> None:
        async with self._database.transaction() as session:
            moved = await session.scalar(
                _step(job, ReservationState.HOLDING, ReservationState.POSTED).returning(Reservation.amount)
            )
            if moved is None:
                raise Unavailable("The reservation took too long; try again.")
            if moved:
                await self._move(session, await session.get_one(Reservation, job))

    async def _move(self, session: AsyncSession, row: Reservation) -> None:
        organization, amount = OrganizationId(row.organization), NanoDollars(row.amount)
        posting = journal.money_reserved(organization, amount, reference=row.job)
        await journal.post(session, [posting], self._clock.now_ms())
        # Read after the posting, which has locked the balance: nobody else takes the same money meanwhile.
        balances = await journal.balances(session, [organization], journal.AccountName.WALLET)
        if balances[organization][0] < 0:
            raise QuotaExceeded("The organization's credit does not cover the cost of this job.")
        spending = SpendingChanges()
        spending.add((row.organization, row.project, row.key), row.reserved_at_ms, reserved=amount)
        await spending.write(session)

    async def _finish(self, organization: OrganizationId, job: JobId) -> None:
        """The ledger figure falls first, then the hold goes: in between the money counts twice, never not at all."""
        async with self._database.reading() as session:
            row = await session.get_one(Reservation, job)
        names = json.loads(row.budgets)
        states = (await self._budgets.states({organization: names}))[organization]
        await self._live.apply([(organization, [BudgetUpdate(name, states.get(name)) for name in names])])
        await self._holds.release(organization, job)
        async with self._database.transaction() as session:
            await session.execute(_step(job, ReservationState.POSTED, ReservationState.OPEN))

    async def _abandon(self, organization: OrganizationId, job: JobId) -> None:
        async with self._database.transaction() as session:
            await session.execute(
                delete(Reservation).where(Reservation.job == job, Reservation.state == ReservationState.HOLDING)
            )
        await self._holds.release(organization, job)


def _step(job: JobId, before: ReservationState, after: ReservationState) -> Update:
    return update(Reservation).where(Reservation.job == job, Reservation.state == before).values(state=after.value)
