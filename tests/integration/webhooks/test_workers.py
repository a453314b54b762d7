"""Workers that die, that work at once, and endpoints that are slow: everybody gets everything, and nobody waits."""

import asyncio
import contextlib

import pytest
from sqlalchemy import insert, select, text, update

from support.gateway_stack import until
from support.webhooks.receiver import answers, hangs
from support.webhooks.stand import GLOBEX, WebhooksStand
from tokenyard.webhooks.delivery.choice import OF_ENDPOINT, OF_ORGANIZATION
from tokenyard.webhooks.delivery.operator_store import CANDIDATES, LEASE_MS
from tokenyard.webhooks.delivery.sending import AT_ONCE, EndpointAnswer
from tokenyard.webhooks.events import write_event
from tokenyard.webhooks.tables import WebhookDeliveryRow, WebhookEndpointRow


async def test_what_a_lost_worker_had_sent_is_sent_again_with_the_same_id(stand: WebhooksStand) -> None:
    await stand.endpoint()
    event = await stand.tell()
    stand.receiver.behaviours["/hook"] = hangs
    await stand.worker.step()
    await until(lambda: len(stand.receiver.received) == 1)
    await stand.worker.__aexit__()  # it ends between sending and noting
    stand.receiver.behaviours.clear()
    await stand.after(LEASE_MS / 1000 - 1)
    assert len(stand.receiver.received) == 1
    await stand.after(1)
    assert [one.id for one in stand.receiver.received] == [event, event]
    assert [one.state for one in await stand.deliveries()] == ["delivered"]


async def test_who_lost_its_lease_notes_nothing(stand: WebhooksStand) -> None:
    await stand.endpoint()
    await stand.tell()
    [late] = await stand.store.claim(free=1, free_for_failing=1)
    stand.clock.advance(LEASE_MS / 1000)
    [again] = await stand.store.claim(free=1, free_for_failing=1)
    assert await stand.store.note(late, EndpointAnswer(1, 500), at_ms=0) is None
    assert await stand.store.note(again, EndpointAnswer(1, 200), at_ms=0) == "delivered"
    assert [one.attempts for one in await stand.deliveries()] == [1]


async def test_the_answer_of_a_former_url_says_nothing_of_the_new_one(stand: WebhooksStand) -> None:
    made = await stand.endpoint("/old")
    await stand.tell()
    [under_way] = await stand.store.claim(free=1, free_for_failing=1)
    await stand.acme.webhooks.update(made.id, url=f"{stand.receiver.url}/new")
    assert await stand.store.note(under_way, EndpointAnswer(1, 410), at_ms=0) == "waiting"
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True
    await stand.after(5)
    assert [one.path for one in stand.receiver.received] == ["/new"]


async def test_two_workers_send_nothing_twice(stand: WebhooksStand) -> None:
    await stand.endpoint()
    events = [await stand.tell() for _ in range(20)]
    stores = [stand.store, stand.store]
    claimed: list[str] = []
    for _ in range(5):
        rounds = await asyncio.gather(*(store.claim(free=AT_ONCE, free_for_failing=AT_ONCE) for store in stores))
        assert sum(map(len, rounds)) <= OF_ENDPOINT
        for delivery in (one for found in rounds for one in found):
            claimed.append(delivery.message.id)
            await stand.store.note(delivery, EndpointAnswer(1, 200), at_ms=0)
    assert sorted(claimed) == sorted(events)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)  # SQLite has one writer at a time
async def test_a_tenant_s_long_change_holds_up_no_other(stand: WebhooksStand) -> None:
    """Whoever deletes an endpoint with many deliveries holds their rows for as long as that takes."""
    theirs = await stand.endpoint("/theirs", client=stand.globex)
    await stand.tell(organization=GLOBEX)
    await stand.endpoint()
    event = await stand.tell()
    async with stand.database.transaction() as session:
        changed = update(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint == theirs.id)
        await session.execute(changed.values(state="failed", due_at_ms=None))
        async with asyncio.timeout(1):
            found = await stand.store.claim(free=AT_ONCE, free_for_failing=AT_ONCE)
    assert [one.message.id for one in found] == [event]
    assert await stand.store.claim(free=AT_ONCE, free_for_failing=AT_ONCE) == []


async def test_ever_so_many_that_fail_hold_up_no_other(stand: WebhooksStand) -> None:
    """More organizations' than are looked at in one go, and no room for one that fails."""
    await stand.endpoint("/fails", client=stand.globex)
    await stand.tell(organization=GLOBEX)
    async with stand.database.transaction() as session:
        [endpoint] = (await session.scalars(select(WebhookEndpointRow))).all()
        [delivery] = (await session.scalars(select(WebhookDeliveryRow))).all()
        endpoint.failing_since_ms = stand.clock.now_ms()
        for number in range(CANDIDATES):
            owner, another = f"org_{number}", f"we_{number}"
            await session.execute(insert(WebhookEndpointRow).values(_columns(endpoint, id=another, organization=owner)))
            told = {"id": delivery.id + 1 + number, "organization": owner, "endpoint": another}
            await session.execute(insert(WebhookDeliveryRow).values(_columns(delivery, **told)))
        if not stand.database.is_sqlite:
            await session.execute(text("SELECT setval('webhooks_deliveries_id_seq', 10000)"))
    await stand.endpoint()
    event = await stand.tell()
    found = await stand.store.claim(free=AT_ONCE, free_for_failing=0)
    assert [one.message.id for one in found] == [event]


def _columns(row: WebhookEndpointRow | WebhookDeliveryRow, **others: object) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns} | others


async def test_a_hanging_endpoint_holds_up_no_other(stand: WebhooksStand) -> None:
    for number in range(3):
        stand.receiver.behaviours[f"/hangs{number}"] = hangs
        await stand.endpoint(f"/hangs{number}", client=stand.globex)
    for _ in range(50):
        await stand.tell(organization=GLOBEX)
    await stand.endpoint()
    events = [await stand.tell() for _ in range(6)]
    await stand.worker.step()
    await until(lambda: len(stand.receiver.at("/hook")) == OF_ENDPOINT)
    assert sum(len(stand.receiver.at(f"/hangs{number}")) for number in range(3)) <= OF_ORGANIZATION
    await until(lambda: _idle(stand))
    await stand.worker.step()
    await until(lambda: len(stand.receiver.at("/hook")) == len(events))
    await stand.worker.finish()
    assert max(stand.receiver.most.values()) <= OF_ENDPOINT
    # Once it is known to fail, it gets one at a time.
    stand.receiver.most.clear()
    await stand.after(3600)
    assert set(stand.receiver.most.values()) == {1}


def _idle(stand: WebhooksStand) -> bool:
    """Whether what answers has been noted, so that only what hangs is under way."""
    return all(one.url.find("/hangs") > 0 for one in stand.worker._under_way.values())


async def test_those_that_fail_leave_half_of_the_room_to_others(stand: WebhooksStand) -> None:
    stand.receiver.behaviours["/fails"] = answers(500)
    await stand.endpoint("/fails", client=stand.globex)
    await stand.tell(organization=GLOBEX)
    await stand.round()
    stand.clock.advance(5)
    await stand.endpoint()
    await stand.tell()
    assert [one.url for one in await stand.store.claim(free=8, free_for_failing=0)] == [stand.receiver.url + "/hook"]
    [failing] = await stand.store.claim(free=8, free_for_failing=1)
    assert failing.failing


async def test_how_long_what_is_due_waits_is_known(stand: WebhooksStand) -> None:
    assert await stand.store.longest_due_ms() == 0
    await stand.endpoint()
    await stand.tell()
    stand.clock.advance(7)
    assert await stand.store.longest_due_ms() == 7_000
    await stand.round()
    assert await stand.store.longest_due_ms() == 0


async def test_an_event_is_there_exactly_if_the_change_is(stand: WebhooksStand) -> None:
    await stand.endpoint()
    with contextlib.suppress(RuntimeError):
        async with stand.database.transaction() as session:
            await write_event(session, GLOBEX, "invoice.paid", {"id": "inv_1"}, at_ms=stand.clock.now_ms())
            raise RuntimeError
    assert (await stand.call("GET", "/v1/webhook_events", key="ty-globex"))[1]["data"] == []
    assert await stand.deliveries() == []


async def test_a_secret_that_cannot_be_read_holds_up_no_other(stand: WebhooksStand) -> None:
    made, other = await stand.endpoint(), await stand.endpoint("/other")
    await _spoil(stand, made.id)
    event = await stand.tell()
    await stand.round()
    assert [one.path for one in stand.receiver.received] == ["/other"]
    attempts = (await stand.call("GET", f"/v1/webhook_events/{event}"))[1]["attempts"]
    errors = {one["webhook_endpoint_id"]: one["error"] for one in attempts}
    assert errors == {made.id: "The signing secret cannot be read any more. Rotate it.", other.id: None}
    await stand.acme.webhooks.rotate_secret(made.id)
    await stand.after(5)
    assert [one.path for one in stand.receiver.received] == ["/other", "/hook"]


async def _spoil(stand: WebhooksStand, endpoint: str) -> None:
    """Let its secret be encrypted with a key that is not there any more."""
    async with stand.database.transaction() as session:
        row = await session.get_one(WebhookEndpointRow, endpoint)
        row.secret = bytes(60)
