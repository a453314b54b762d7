"""What an endpoint gets, when it gets it again, and when it is left alone; time is moved, never waited for."""

import itertools
import json
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from support.webhooks.receiver import (
    Behaviour,
    ReceivedWebhook,
    answers,
    babbles,
    closes,
    hangs,
    never_stops,
    trickles,
)
from support.webhooks.stand import ACME, FAILED, GLOBEX, SUCCEEDED, WebhooksStand
from tokenyard.webhooks.delivery.schedule import DELAYS_S
from tokenyard.webhooks.delivery.sending import ANSWER_BYTES

DAY_S = 86_400


async def attempts_of(stand: WebhooksStand, event: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await stand.call("GET", f"/v1/webhook_events/{event}"))[1]["attempts"]
    return found


def verified_by(stand: WebhooksStand, received: ReceivedWebhook, secret: str) -> bool:
    """Ask both libraries, each of which knows the format by itself."""
    headers = dict(received.headers)
    try:
        Webhook(secret).verify(received.body, headers)
        reference = True
    except WebhookVerificationError:
        reference = False
    try:
        stand.acme.webhooks.verify_signature(received.body, headers, secret=secret)
        sdk = True
    except InvalidWebhookSignatureError:
        sdk = False
    assert reference == sdk
    return sdk


async def test_the_sdk_understands_what_is_sent(stand: WebhooksStand) -> None:
    made = await stand.endpoint("/hook?of=acme", SUCCEEDED)
    event = await stand.tell(data={"id": "ftjob-ü"})
    await stand.round()
    [received] = stand.receiver.received
    assert (received.path, received.headers["content-type"]) == ("/hook?of=acme", "application/json")
    read = stand.acme.webhooks.unwrap(received.body, dict(received.headers), secret=made.signing_secret)
    assert isinstance(read, FineTuningJobSucceededWebhookEvent)
    assert (read.id, read.object, read.data.id) == (event, "event", "ftjob-ü")
    assert read.created_at == stand.clock.now_ms() // 1000
    assert verified_by(stand, received, made.signing_secret)
    assert not verified_by(stand, received, "whsec_" + "A" * 32)


async def test_only_who_subscribed_in_the_organization_is_told(stand: WebhooksStand) -> None:
    await stand.endpoint("/all")
    await stand.endpoint("/failed", FAILED)
    await stand.endpoint("/theirs", client=stand.globex)
    event, theirs = await stand.tell(SUCCEEDED), await stand.tell(SUCCEEDED, GLOBEX)
    await stand.round()
    assert {(one.path, one.id) for one in stand.receiver.received} == {("/all", event), ("/theirs", theirs)}


async def test_what_fails_is_tried_again_by_the_schedule_with_the_same_id(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(503, b"not now")
    event = await stand.tell()
    await stand.round()
    for number, delay_s in enumerate(DELAYS_S, 1):
        await stand.after(delay_s - 0.5)
        assert len(stand.receiver.received) == number
        await stand.after(0.5)
        assert len(stand.receiver.received) == number + 1
    assert {one.id for one in stand.receiver.received} == {event}
    stamps = [int(one.headers["webhook-timestamp"]) for one in stand.receiver.received]
    assert [later - earlier for earlier, later in itertools.pairwise(stamps)] == list(DELAYS_S)
    [delivery] = await stand.deliveries()
    assert (delivery.state, delivery.attempts, delivery.due_at_ms) == ("failed", len(DELAYS_S) + 1, None)
    await stand.after(30 * DAY_S)
    assert len(stand.receiver.received) == len(DELAYS_S) + 1
    told = await attempts_of(stand, event)
    assert {(one["status_code"], one["answer"], one["error"]) for one in told} == {(503, "not now", None)}
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True
    states = {"waiting": len(DELAYS_S), "failed": 1}
    assert states == {
        state: stand.registry.get_sample_value("tokenyard_webhook_attempts_total", {"state": state}) for state in states
    }


async def test_an_endpoint_that_recovers_gets_it(stand: WebhooksStand) -> None:
    await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(500)
    await stand.tell()
    await stand.round()
    stand.receiver.behaviours.clear()
    await stand.after(DELAYS_S[0])
    [delivery] = await stand.deliveries()
    assert (delivery.state, delivery.attempts, delivery.due_at_ms) == ("delivered", 2, None)
    await stand.after(DAY_S)
    assert len(stand.receiver.received) == 2


BAD: dict[str, tuple[Behaviour, int | None, str | None]] = {
    "/hangs": (hangs, None, "There was no answer in time."),
    "/trickles": (trickles, None, "There was no answer in time."),
    "/closes": (closes, None, "The host closed the connection without an answer."),
    "/babbles": (babbles, None, "The answer was not understood, or cut short."),
    "/redirects": (answers(302, location="/elsewhere"), 302, None),
    "/refuses": (answers(401, b"\xff\x00"), 401, None),
}


async def test_what_no_server_should_do_is_a_failure_that_is_told(stand: WebhooksStand) -> None:
    for path, (behaviour, _, _) in BAD.items():
        stand.receiver.behaviours[path] = behaviour
        await stand.endpoint(path)
    nobody = await stand.acme.webhooks.create(name="x", url="http://127.0.0.1:1/", event_types=[SUCCEEDED])
    nowhere = await stand.acme.webhooks.create(name="x", url="http://a.invalid/", event_types=[SUCCEEDED])
    event = await stand.tell()
    for _ in range(2):  # at most eight of an organization at once, of which some have ended by then
        await stand.round()
    told = {one["webhook_endpoint_id"]: (one["status_code"], one["error"]) for one in await attempts_of(stand, event)}
    paths = {one.id: one.url.removeprefix(stand.receiver.url) async for one in stand.acme.webhooks.list()}
    assert told.pop(nobody.id) == (None, "The host cannot be reached.")
    assert told.pop(nowhere.id) == (None, "The host was not found.")
    assert {paths[endpoint]: found for endpoint, found in told.items()} == {
        path: (status, error) for path, (_, status, error) in BAD.items()
    }
    assert not stand.receiver.at("/elsewhere")
    assert {one.state for one in await stand.deliveries()} == {"waiting"}


async def test_of_an_answer_only_the_beginning_is_read(stand: WebhooksStand) -> None:
    stand.receiver.behaviours["/huge"] = never_stops
    await stand.endpoint("/huge")
    event = await stand.tell()
    await stand.round()
    [attempt] = await attempts_of(stand, event)
    assert (attempt["status_code"], attempt["answer"]) == (200, "x" * ANSWER_BYTES)
    assert [one.state for one in await stand.deliveries()] == ["delivered"]


async def test_who_says_gone_is_told_nothing_more(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(410)
    await stand.tell()
    await stand.round()
    await stand.tell()
    await stand.after(DAY_S)
    assert len(stand.receiver.received) == 1
    assert [one.state for one in await stand.deliveries()] == ["failed"]
    seen = (await stand.acme.webhooks.retrieve(made.id)).to_dict()
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "It answered 410 Gone.")
    audited = (await stand.audited())[-1]
    assert (audited.action, audited.actor, audited.organization_id) == ("webhook_endpoint.disabled", "worker", ACME)
    assert audited.details["reason"] == "It answered 410 Gone."


async def test_who_fails_for_days_is_disabled_and_may_be_enabled(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(500)
    await stand.tell()
    await stand.round()
    await stand.after(4.9 * DAY_S)
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True
    await stand.tell()
    await stand.after(0.1 * DAY_S)
    seen = (await stand.acme.webhooks.retrieve(made.id)).to_dict()
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "Nothing was delivered for five days.")
    assert {one.state for one in await stand.deliveries()} == {"failed"}
    assert (await stand.audited())[-1].details["reason"] == "Nothing was delivered for five days."
    status, answer = await stand.call("POST", f"/v1/webhook_endpoints/{made.id}", {"enabled": True})
    assert (status, answer["enabled"], answer["disabled_reason"]) == (200, True, None)
    await stand.tell()
    await stand.round()
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True


async def test_success_ends_the_time_of_failing(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    for _ in range(3):
        stand.receiver.behaviours["/hook"] = answers(500)
        await stand.tell()
        await stand.after(3 * DAY_S)
        stand.receiver.behaviours.clear()
        await stand.after(DELAYS_S[0])
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True


async def test_a_new_url_is_given_its_own_days(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(500)
    await stand.tell()
    await stand.round()
    await stand.acme.webhooks.update(made.id, url=f"{stand.receiver.url}/new")
    stand.receiver.behaviours["/new"] = answers(500)
    await stand.after(5 * DAY_S)
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True


@pytest.mark.parametrize("keep", [True, False])
async def test_the_former_secret_signs_for_a_day_where_that_is_wanted(stand: WebhooksStand, keep: bool) -> None:
    made = await stand.endpoint()
    rotated = await stand.acme.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=keep)
    assert rotated.signing_secret != made.signing_secret
    await stand.tell()
    await stand.round()
    [received] = stand.receiver.received
    assert verified_by(stand, received, rotated.signing_secret)
    assert verified_by(stand, received, made.signing_secret) is keep
    assert len(received.headers["webhook-signature"].split(" ")) == 1 + keep
    stand.clock.advance(DAY_S)
    await stand.tell()
    await stand.round()
    assert len(stand.receiver.received[-1].headers["webhook-signature"].split(" ")) == 1


async def test_what_waits_for_a_disabled_or_deleted_endpoint_is_not_sent(stand: WebhooksStand) -> None:
    disabled, deleted = await stand.endpoint("/disabled"), await stand.endpoint("/deleted")
    await stand.tell()
    await stand.call("POST", f"/v1/webhook_endpoints/{disabled.id}", {"enabled": False})
    await stand.acme.webhooks.delete(deleted.id)
    await stand.tell()
    await stand.round()
    assert stand.receiver.received == []
    assert [(one.endpoint, one.state) for one in await stand.deliveries()] == [(disabled.id, "failed")]


async def test_an_event_stays_for_thirty_days(stand: WebhooksStand) -> None:
    await stand.endpoint()
    event = await stand.tell()
    await stand.after(0)
    stand.clock.advance(30 * DAY_S)
    assert await stand.store.delete_old(limit=10) == 0
    young = await stand.tell()
    stand.clock.advance(1)
    assert await stand.store.delete_old(limit=10) == 1
    assert (await stand.call("GET", f"/v1/webhook_events/{event}"))[0] == 404
    assert [one.event for one in await stand.deliveries()] == [young]


async def test_what_is_sent_is_plain_json(stand: WebhooksStand) -> None:
    await stand.endpoint()
    event = await stand.tell("budget.alert", data={"percent": 80, "used": 10**15})
    await stand.round()
    assert json.loads(stand.receiver.received[0].body) == {
        "object": "event",
        "id": event,
        "type": "budget.alert",
        "created_at": stand.clock.now_ms() // 1000,
        "data": {"percent": 80, "used": 10**15},
    }
