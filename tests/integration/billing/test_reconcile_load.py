"""Books that agree pass at every moment, whatever is under way: no check cries wolf under load."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout
from sqlalchemy import select

from support.billing.busy_books import USED, BusyBooks
from support.billing.stand import ACME, GLOBEX, reported, send
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import OrganizationId, new_adapter_id, new_job_id, new_request_id
from tokenyard.core.usage import MeterClaims
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.sweeper import Sweeper
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database
from tokenyard_billing.charging.decision import Rule
from tokenyard_billing.tables import Charge
from tokenyard_billing.wallets.budgets import SqlBudgets

ALL_RULES = set(Rule) - {Rule.PLAN_FEE, Rule.MINIMUM}  # those come when a period closes
CLIENTS = 6
LOOKS = 12
ENDINGS = (
    "completed",
    "left",
    "lost",
    "failed",
    "silent",
    "late",
    "elsewhere",
    "job",
    "hour",
    "month",
    "grant",
    "wrong",
    "dear",
)


class Load:
    """Requests and jobs that end in every way there is. `dying` is a gateway that renews no holds."""

    def __init__(self, books: BusyBooks, dying: RedisAdmission) -> None:
        self.over = False
        self._books = books
        self._dying = dying
        self._chance = random.Random(7)
        self._months = 0

    async def client(self, organization: OrganizationId) -> None:
        while not self.over:
            with suppress(Unavailable):  # a machine that stands still for a moment refuses, and keeps its books
                await self._end(organization, self._chance.choice(ENDINGS))

    async def _end(self, organization: OrganizationId, ending: str) -> None:
        match ending:
            case "job":
                await self._job()
            case "hour":
                await self._books.host(new_adapter_id())
            case "month":
                self._months += 1
                await self._books.keep(organization, self._months)
            case "grant":
                await self._books.grant(organization, key=new_request_id())
            case "wrong" | "dear":
                if self._chance.random() < 0.1:
                    card = None if ending == "wrong" else "cheap"
                    await self._books.correct(organization, card, last_ms=5_000)
            case "silent" | "late":
                await self._abandoned(organization, late=ending == "late")
            case "elsewhere":
                made = await self._books.admit(new_request_id(), organization, server="sold")
                await self._books.settle(made, Outcome.LEFT_ELSEWHERE)
            case _:
                await self._request(organization, ending)

    async def _request(self, organization: OrganizationId, ending: str) -> None:
        made = await self._books.admit(new_request_id(), organization)
        outcomes = {"left": Outcome.CLIENT_LEFT, "lost": Outcome.REPLICA_LOST, "failed": Outcome.FAILED}
        await self._books.settle(made, outcomes.get(ending, Outcome.COMPLETED))
        await self._maybe_report(made)

    async def _abandoned(self, organization: OrganizationId, *, late: bool) -> None:
        """Let the hold expire; the gateway may settle long after."""
        made = await self._books.admit(new_request_id(), organization, gateway=self._dying)
        await self._maybe_report(made)
        if late:
            await asyncio.sleep(self._chance.random() / 2)
            await self._books.settle(made)

    async def _maybe_report(self, made: MeterClaims) -> None:
        if self._chance.random() < 0.5:
            await send(self._books.redis, reported(made, USED))

    async def _job(self) -> None:
        job = new_job_id()
        await self._books.reserve(job, 1_000_000)
        await asyncio.sleep(self._chance.random() / 10)
        await self._books.train(job)


async def test_no_difference_is_seen_in_honest_books_under_load(
    database: Database, redis: Redis, tmp_path: Path
) -> None:
    async with BusyBooks(database, redis, tmp_path / "spool", report_wait_ms=50) as books:
        for organization in (ACME, GLOBEX):
            await books.grant(organization)
        dying = RedisAdmission(
            redis, SqlBudgets(database).load, spool_folder=tmp_path / "dying", lease_ms=50, renewal_ms=5_000
        )
        load = Load(books, dying)
        sweeper = Sweeper(redis, renewal_ms=1)

        async def repeat(step: Callable[[], Awaitable[None]]) -> None:
            while not load.over:
                with suppress(TimeoutError, RedisTimeout):  # as the worker's loops do
                    await step()
                await asyncio.sleep(0.01)

        async def look() -> None:
            looks = 0
            try:
                while looks < LOOKS or not await _rules(database) >= ALL_RULES:
                    assert await books.broken() == set()
                    looks += 1
            finally:
                load.over = True

        async with asyncio.timeout(200), asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(load.client((ACME, GLOBEX)[number % 2]))
            worker = books.worker
            steps = worker.consumer.step, worker.drafter.step, worker.corrections.step, sweeper.sweep, books.outbox.step
            for step in steps:
                tasks.create_task(repeat(step))
            tasks.create_task(look())
        assert await books.broken() == set()


async def _rules(database: Database) -> set[str]:
    """Return the rows of the charge table that have decided something."""
    async with database.reading() as session:
        return set(await session.scalars(select(Charge.rule).distinct()))
