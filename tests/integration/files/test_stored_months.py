"""An event for each gigabyte that was kept for a month: no gap and no double, whoever dies and however late."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import delete

from support.fakes.clock import FrozenClock
from tokenyard.catalog.store import adapter_bytes
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.evals.store import eval_bytes
from tokenyard.evals.tables import EvalRow, EvalRunRow
from tokenyard.files import stored_months
from tokenyard.files.store import FileState, file_bytes
from tokenyard.files.stored_months import StoredMonths
from tokenyard.files.tables import FileRow
from tokenyard.metering.events import HOUR_MS, StorageHeld, decode_event
from tokenyard.metering.stream import USAGE_TOPIC, usage_carrier
from tokenyard.responses.store import answer_bytes
from tokenyard.responses.tables import AnswerRow
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageUse
from tokenyard.storage.transactional_outbox import TransactionalOutbox

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
GB = 10**9
HOUR_S = HOUR_MS // 1000
STORED = StorageUse(file_bytes, adapter_bytes, answer_bytes, eval_bytes)


@dataclass
class Accounting:
    """Organizations with files, and two workers that count what they keep."""

    database: Database
    redis: Redis
    clock: FrozenClock = field(default_factory=FrozenClock)
    organizations: list[OrganizationId] = field(default_factory=lambda: [ACME])

    def __post_init__(self) -> None:
        self.clock.advance(HOUR_S - self.clock.now_ms() / 1000 % HOUR_S + 600)  # ten minutes past an hour
        outbox = TransactionalOutbox(self.database, self.redis, self.clock, {USAGE_TOPIC: usage_carrier(self.redis)})

        async def organizations() -> list[OrganizationId]:
            return self.organizations

        self.workers = [StoredMonths(self.database, STORED, organizations, outbox, self.clock) for _ in range(2)]

    async def keep(self, gigabytes: int, organization: OrganizationId = ACME) -> None:
        """Store one more file of so many gigabytes."""
        at_ms = self.clock.now_ms()
        row = FileRow(
            id=f"file-{organization}-{at_ms}",
            organization=organization,
            project="proj_1",
            filename="f",
            purpose="user_data",
            state=FileState.PROCESSED,
            bytes=gigabytes * GB,
            created_at_ms=at_ms,
        )
        async with self.database.transaction() as session:
            session.add(row)

    async def delete_all(self) -> None:
        async with self.database.transaction() as session:
            await session.execute(delete(FileRow))

    async def hours(self, count: int, *, at_once: bool = False) -> None:
        """Let so many hours pass, with a worker in each or only after the last one."""
        for _ in range(1 if at_once else count):
            self.clock.advance(HOUR_S * (count if at_once else 1))
            await self.workers[0].step()

    async def events(self, organization: OrganizationId = ACME) -> list[StorageHeld]:
        entries: Any = await self.redis.xrange(usage_stream(bucket_of(organization)))
        found = [decode_event(fields[b"event"]) for _, fields in entries]
        return [event for event in found if isinstance(event, StorageHeld) and event.organization == organization]


@pytest.fixture
async def accounting(database: Database, redis: Redis) -> Accounting:
    made = Accounting(database, redis)
    await made.workers[0].step()
    return made


async def test_each_gigabyte_that_was_kept_for_a_month_is_an_event(accounting: Accounting) -> None:
    await accounting.keep(240)  # a gigabyte-month in three hours
    await accounting.hours(2)
    assert await accounting.events() == []
    await accounting.hours(1)
    await accounting.workers[0].step()
    hour_ms = accounting.clock.now_ms() // HOUR_MS * HOUR_MS
    assert await accounting.events() == [StorageHeld(ACME, 1, hour_ms)]
    await accounting.hours(3)
    assert [event.number for event in await accounting.events()] == [1, 2]


async def test_stored_answers_and_evals_count_as_files_do(accounting: Accounting) -> None:
    kept = {"organization": ACME, "project": "proj_1", "created_at_ms": 0, "size": 30 * GB, "content": b""}
    rows = (
        AnswerRow(id="resp_1", kind="response", model="m", state="completed", details={}, **kept),
        EvalRow(id="eval_1", name="", details={}, updated_at_ms=0, **kept),
        EvalRunRow(
            **{"id": "evalrun_1", "eval": "eval_1", "key": "key_1", "name": "", "details": {}, "model": ""},
            **{"state": "queued", "tally": {}, "lease_until_ms": 0, **kept},
        ),
    )
    async with accounting.database.transaction() as session:
        session.add_all(rows)
    await accounting.keep(30)
    await accounting.hours(6)
    assert len(await accounting.events()) == 1, "120 gigabytes for six hours are a gigabyte-month"


async def test_it_may_take_long_to_come_together(accounting: Accounting) -> None:
    await accounting.keep(120)
    await accounting.hours(5)
    await accounting.delete_all()
    await accounting.hours(10)
    assert await accounting.events() == []
    await accounting.keep(120)
    await accounting.hours(1)
    assert len(await accounting.events()) == 1


async def test_more_than_one_of_an_hour_are_numbered(accounting: Accounting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_months, "EVENTS_AT_ONCE", 2)
    await accounting.keep(3 * 720)
    await accounting.hours(1)
    assert [event.number for event in await accounting.events()] == [1, 2], "the rest comes with the next hour"
    await accounting.delete_all()
    await accounting.hours(1)
    assert [event.number for event in await accounting.events()] == [1, 2, 3]


async def test_hours_without_a_worker_are_counted_when_one_comes(accounting: Accounting) -> None:
    await accounting.keep(240)
    await accounting.hours(7, at_once=True)
    found = await accounting.events()
    assert [event.number for event in found] == [1, 2]
    assert {event.admitted_at_ms for event in found} == {accounting.clock.now_ms() // HOUR_MS * HOUR_MS}


async def test_two_workers_count_an_hour_once(accounting: Accounting) -> None:
    await accounting.keep(720)
    accounting.clock.advance(HOUR_S)
    await asyncio.gather(*(worker.step() for worker in accounting.workers))
    assert [event.number for event in await accounting.events()] == [1]


async def test_a_new_organization_begins_with_the_next_hour_and_pays_for_itself(accounting: Accounting) -> None:
    await accounting.keep(720)
    accounting.organizations.append(UMBRA)
    await accounting.keep(720, UMBRA)
    await accounting.hours(1)
    assert [len(await accounting.events(one)) for one in (ACME, UMBRA)] == [1, 0]
    await accounting.hours(1)
    assert [len(await accounting.events(one)) for one in (ACME, UMBRA)] == [2, 1]
