"""What was told is seen, and told again: one event, all that an endpoint missed, or a sample."""

from typing import Any

import pytest
from openai import BadRequestError
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent

from support.webhooks.receiver import answers, hangs
from support.webhooks.stand import ACME, FAILED, SUCCEEDED, WebhooksStand


async def ids(stand: WebhooksStand, **query: Any) -> list[str]:
    status, answer = await stand.call("GET", "/v1/webhook_events", **query)
    assert status == 200, answer
    return [one["id"] for one in answer["data"]]


async def replay(stand: WebhooksStand, endpoint: str, since: int) -> dict[str, object]:
    status, answer = await stand.call("POST", f"/v1/webhook_endpoints/{endpoint}/replay", {"since": since})
    assert status == 200, answer
    return answer


async def test_events_are_listed_by_type_time_endpoint_and_state(stand: WebhooksStand) -> None:
    good, bad = await stand.endpoint("/good"), await stand.endpoint("/bad", FAILED)
    stand.receiver.behaviours["/bad"] = answers(500)
    began = stand.clock.now_ms() // 1000
    first = await stand.tell(SUCCEEDED)
    stand.clock.advance(10)
    second = await stand.tell(FAILED)
    await stand.round()
    stand.clock.advance(10)
    third = await stand.tell(SUCCEEDED)
    assert await ids(stand) == [third, second, first]
    assert await ids(stand, limit=1, after=third) == [second]
    assert await ids(stand, event_type=SUCCEEDED) == [third, first]
    assert await ids(stand, start_time=began + 10, end_time=began + 20) == [second]
    assert await ids(stand, webhook_endpoint_id=bad.id) == [second]
    assert await ids(stand, state="waiting") == [third, second]
    assert await ids(stand, state="waiting", webhook_endpoint_id=good.id) == [third]
    assert await ids(stand, state="delivered") == [second, first]
    for query in ({"event_type": "no.such"}, {"state": "lost"}, {"colour": "red"}, {"after": "evt_none"}):
        assert (await stand.call("GET", "/v1/webhook_events", **query))[0] == 400


async def test_an_event_is_shown_with_its_attempts(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(500, b"oops")
    event = await stand.tell()
    await stand.round()
    stand.receiver.behaviours.clear()
    await stand.after(5)
    shown = (await stand.call("GET", f"/v1/webhook_events/{event}"))[1]
    assert (shown["object"], shown["type"], shown["data"]) == ("event", SUCCEEDED, {"id": "ftjob-1"})
    [delivery] = shown["deliveries"]
    assert (delivery["webhook_endpoint_id"], delivery["state"], delivery["attempts"]) == (made.id, "delivered", 2)
    first, second = shown["attempts"]
    assert (first["status_code"], first["answer"], second["status_code"]) == (500, "oops", 204)
    assert second["at_ms"] - first["at_ms"] == 5_000
    assert 0 <= first["duration_ms"] < 10_000


async def test_one_event_is_sent_again_to_one_endpoint_whatever_became_of_it(stand: WebhooksStand) -> None:
    first, other = await stand.endpoint("/first"), await stand.endpoint("/other")
    event = await stand.tell()
    await stand.round()
    late = await stand.endpoint("/late", FAILED)
    for target in (first, late):
        status, shown = await stand.call(
            "POST", f"/v1/webhook_events/{event}/resend", {"webhook_endpoint_id": target.id}
        )
        assert status == 200, shown
    await stand.round()
    assert [one.id for one in stand.receiver.received] == [event] * 4
    assert sorted(one.path for one in stand.receiver.received) == ["/first", "/first", "/late", "/other"]
    audited = (await stand.audited())[-1]
    assert (audited.action, audited.details) == ("webhook_event.resent", {"event": event})
    await stand.call("POST", f"/v1/webhook_endpoints/{other.id}", {"enabled": False})
    status, answer = await stand.call("POST", f"/v1/webhook_events/{event}/resend", {"webhook_endpoint_id": other.id})
    assert (status, answer["error"]["code"]) == (409, "conflict")


async def test_what_is_being_sent_is_not_sent_again_beside_it(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    event = await stand.tell()
    await stand.store.claim(free=1, free_for_failing=1)
    path, body = f"/v1/webhook_events/{event}/resend", {"webhook_endpoint_id": made.id}
    assert (await stand.call("POST", path, body))[0] == 409
    stand.clock.advance(60)
    assert (await stand.call("POST", path, body))[0] == 200
    await stand.round()
    assert len(stand.receiver.received) == 1


async def test_an_endpoint_gets_all_that_it_missed_since_a_time_once(stand: WebhooksStand) -> None:
    made = await stand.endpoint("/hook", SUCCEEDED)
    before = await stand.tell()
    await stand.round()
    stand.clock.advance(100)
    since = stand.clock.now_ms() // 1000
    stand.receiver.behaviours["/hook"] = answers(410)
    failed = await stand.tell()
    await stand.round()
    missed = await stand.tell()  # it is disabled by now
    await stand.tell(FAILED)
    status, _ = await stand.call("POST", f"/v1/webhook_endpoints/{made.id}/replay", {"since": since})
    assert status == 409
    stand.receiver.behaviours.clear()
    await stand.call("POST", f"/v1/webhook_endpoints/{made.id}", {"enabled": True})
    stand.receiver.received.clear()
    assert (await replay(stand, made.id, since))["events"] == 2
    assert (await replay(stand, made.id, since))["events"] == 0
    await stand.round()
    assert sorted(one.id for one in stand.receiver.received) == sorted((failed, missed))
    assert before not in {one.id for one in stand.receiver.received}
    assert (await replay(stand, made.id, 0))["events"] == 0
    audited = (await stand.audited())[-1]
    assert (audited.organization_id, audited.action) == (ACME, "webhook_endpoint.replayed")


async def test_a_sample_is_sent_at_once_and_leaves_nothing_behind(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(418)
    result = await stand.acme.webhooks.test(made.id, event_type=SUCCEEDED)
    assert (result.status_code, result.success, result.webhook_endpoint_id) == (418, True, made.id)
    [received] = stand.receiver.received
    read = stand.acme.webhooks.unwrap(received.body, dict(received.headers), secret=made.signing_secret)
    assert isinstance(read, FineTuningJobSucceededWebhookEvent)
    assert read.data.id == "test"
    assert await ids(stand) == []
    assert await stand.deliveries() == []
    stand.receiver.behaviours["/hook"] = hangs
    with pytest.raises(BadRequestError, match="There was no answer in time"):
        await stand.acme.webhooks.test(made.id, event_type=SUCCEEDED)


async def test_an_operator_sees_and_replays_and_stops_any_organizations(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    stand.receiver.behaviours["/hook"] = answers(500)
    event = await stand.tell()
    await stand.round()
    root, key = f"/admin/organizations/{ACME}", "ty-operator"
    status, listed = await stand.call("GET", f"{root}/webhook_endpoints", key=key)
    assert (status, [one["id"] for one in listed["data"]]) == (200, [made.id])
    assert "signing_secret" not in listed["data"][0]
    assert [one["id"] for one in (await stand.call("GET", f"{root}/webhook_events", key=key))[1]["data"]] == [event]
    assert (await stand.call("GET", f"{root}/webhook_events/{event}", key=key))[1]["attempts"][0]["status_code"] == 500
    off = {"enabled": False, "reason": "It floods the logs."}
    stopped = (await stand.call("PATCH", f"{root}/webhook_endpoints/{made.id}", off, key=key))[1]
    assert (stopped["enabled"], stopped["disabled_reason"]) == (False, "It floods the logs.")
    await stand.call("PATCH", f"{root}/webhook_endpoints/{made.id}", {"enabled": True}, key=key)
    again = await stand.call("POST", f"{root}/webhook_endpoints/{made.id}/replay", {"since": 0}, key=key)
    assert again[1]["events"] == 1
    body = {"webhook_endpoint_id": made.id}
    assert (await stand.call("POST", f"{root}/webhook_events/{event}/resend", body, key=key))[0] == 200
    assert {one.actor for one in (await stand.audited())[-4:]} == {"key_operator"}
    theirs = "/admin/organizations/org_globex/webhook_events"
    assert (await stand.call("GET", f"{theirs}/{event}", key=key))[0] == 404
    assert (await stand.call("GET", f"{root}/webhook_events"))[0] == 403
