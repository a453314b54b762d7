"""An event for each hour that begins while a fine-tune is live: no gap and no double, whoever dies and however late."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from tokenyard.catalog.adapters import hosting
from tokenyard.catalog.adapters.hosting import Hosting
from tokenyard.catalog.tables import AdapterRow
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import HOUR_MS, AdapterHosted, decode_event

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
KEY = ApiKeyId("key_1")
HOUR_S = HOUR_MS // 1000


class Accounting:
    """A catalog, and workers that account for hours."""

    def __init__(self, catalog: "Catalog") -> None:
        self.catalog = catalog
        self.workers = [Hosting(catalog.database, catalog.outbox, catalog.clock) for _ in range(2)]

    async def step(self, seconds: float = 0) -> None:
        self.catalog.clock.advance(seconds)
        await self.workers[0].step()

    async def events(self, organization: OrganizationId = ACME) -> list[AdapterHosted]:
        entries: Any = await self.catalog.redis.xrange(usage_stream(bucket_of(organization)))
        found = [decode_event(fields[b"event"]) for _, fields in entries]
        return [event for event in found if isinstance(event, AdapterHosted)]

    async def hours(self, organization: OrganizationId = ACME) -> list[int]:
        """Return how many hours after the present one each event's hour begins or began, in order."""
        now = self.catalog.clock.now_ms() // HOUR_MS
        return [event.admitted_at_ms // HOUR_MS - now for event in await self.events(organization)]

    async def next_hour(self, name: FineTunedName) -> int | None:
        async with self.catalog.database.reading() as session:
            return await session.scalar(select(AdapterRow.next_hour_ms).where(AdapterRow.id == name.id))


@pytest.fixture
def accounting(catalog: "Catalog") -> Accounting:
    made = Accounting(catalog)
    catalog.clock.advance(HOUR_S - catalog.clock.now_ms() / 1000 % HOUR_S + 600)  # ten minutes past an hour
    return made


async def test_each_hour_that_begins_while_it_is_live_is_an_event(accounting: Accounting) -> None:
    name = await accounting.catalog.live()
    await accounting.catalog.checking()
    await accounting.step()
    assert await accounting.events() == [], "the hour in which it went live had begun before"
    for hour in range(3):
        await accounting.step(HOUR_S)
        await accounting.step()
        assert await accounting.hours() == [*range(-hour, 1)]
    first, *_ = await accounting.events()
    assert (first.organization, first.key, first.adapter, first.model) == (ACME, KEY, name.id, str(name))
    assert (first.base_model, first.pinned, first.price) == ("smol", False, "")
    await accounting.catalog.adapters.delete(ACME, str(name), actor=KEY)
    await accounting.step(5 * HOUR_S)
    assert len(await accounting.events()) == 3
    assert await accounting.next_hour(name) is None, "nobody looks at it again"


async def test_what_no_worker_wrote_is_written_when_one_comes(
    accounting: Accounting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "HOURS_AT_ONCE", 4)
    monkeypatch.setattr(hosting, "ADAPTERS_AT_ONCE", 2)
    ended = await accounting.catalog.live()
    for _ in range(4):
        await accounting.catalog.live(UMBRA)
    accounting.catalog.clock.advance(3 * HOUR_S)
    await accounting.catalog.adapters.delete(ACME, str(ended), actor=KEY)
    await accounting.step(10 * HOUR_S)
    assert await accounting.hours() == [-12, -11, -10], "the three hours that began before its end"
    assert sorted(await accounting.hours(UMBRA)) == sorted([*range(-12, 1)] * 4)


async def test_two_workers_at_once_write_each_hour_once(accounting: Accounting) -> None:
    for _ in range(5):
        await accounting.catalog.live()
    for _ in range(3):
        accounting.catalog.clock.advance(HOUR_S)
        await asyncio.gather(*(worker.step() for worker in accounting.workers * 2))
    keys = [event.charge_key for event in await accounting.events()]
    assert len(keys) == len(set(keys)) == 15


class Death(BaseException):
    """The worker is gone."""


async def test_a_worker_that_dies_leaves_neither_gap_nor_double(
    accounting: Accounting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await accounting.catalog.live()

    async def die(*_arguments: Any) -> Sequence[Any]:
        raise Death

    with monkeypatch.context() as patched:  # before the commit
        patched.setattr(hosting, "write_message", die)
        with pytest.raises(Death):
            await accounting.step(HOUR_S)
    assert await accounting.events() == []
    with monkeypatch.context() as patched:  # behind it
        patched.setattr(accounting.catalog.outbox, "try_to_carry", die)
        with pytest.raises(Death):
            await accounting.step()
    await accounting.step()
    assert await accounting.events() == [], "they are written down, and wait for the outbox"
    accounting.catalog.clock.advance(1)
    await accounting.catalog.outbox.step()
    keys = [event.charge_key for event in await accounting.events()]
    assert len(keys) == len(set(keys)) == 3


async def test_an_hour_goes_by_what_was_pinned_as_it_began(accounting: Accounting) -> None:
    name, other = str(await accounting.catalog.live()), str(await accounting.catalog.live())
    worker = accounting.workers[0]
    accounting.catalog.clock.advance(2 * HOUR_S)
    await worker.note_pins({name}, all_known=True)
    await accounting.step(2 * HOUR_S)
    await worker.note_pins(set(), all_known=False)  # a replica did not answer
    accounting.catalog.clock.advance(HOUR_S)
    await worker.note_pins({other}, all_known=True)
    await accounting.step(HOUR_S)

    def hours(model: str, events: list[AdapterHosted]) -> list[bool]:
        return [event.pinned for event in sorted(events, key=lambda one: one.admitted_at_ms) if event.model == model]

    events = await accounting.events()
    assert hours(name, events) == [False, False, True, True, True, False]
    assert hours(other, events) == [False] * 5 + [True]


async def test_adapters_from_before_hours_were_counted_have_none(accounting: Accounting) -> None:
    name = await accounting.catalog.live()
    async with accounting.catalog.database.transaction() as session:
        await session.execute(update(AdapterRow).where(AdapterRow.id == name.id).values(next_hour_ms=None))
    await accounting.step(3 * HOUR_S)
    assert await accounting.events() == []
