"""Endpoints as the OpenAI SDK makes and changes them, and as nobody else can see them."""

from typing import Any

import pytest
from openai import BadRequestError, ConflictError, NotFoundError
from sqlalchemy import select

from support.webhooks.stand import ACME, FAILED, GLOBEX, SUCCEEDED, WebhooksStand
from tokenyard.webhooks.event_types import EVENT_TYPES
from tokenyard.webhooks.store import MAX_ENDPOINTS
from tokenyard.webhooks.tables import WebhookEndpointRow


async def test_an_endpoint_is_made_seen_changed_and_deleted(stand: WebhooksStand) -> None:
    made = await stand.endpoint("/hook", SUCCEEDED)
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    seen = await stand.acme.webhooks.retrieve(made.id)
    assert "signing_secret" not in seen.to_dict()
    assert seen.to_dict() == {name: value for name, value in made.to_dict().items() if name != "signing_secret"}
    stand.clock.advance(10)
    changed = await stand.acme.webhooks.update(made.id, name="Jobs", event_types=[FAILED, FAILED, SUCCEEDED])
    assert (changed.name, changed.event_types, changed.url) == ("Jobs", [FAILED, SUCCEEDED], made.url)
    assert changed.updated_at == made.updated_at + 10
    other = await stand.endpoint("/other")
    assert [one.id async for one in stand.acme.webhooks.list(limit=1)] == [other.id, made.id]
    assert (await stand.acme.webhooks.delete(made.id)).deleted
    with pytest.raises(NotFoundError):
        await stand.acme.webhooks.retrieve(made.id)
    assert (await stand.acme.webhooks.event_types.list()).data == list(EVENT_TYPES)


async def test_every_change_is_in_the_audit_log_without_secrets(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    await stand.acme.webhooks.update(made.id, name="New")
    await stand.acme.webhooks.update(made.id, name="New")
    rotated = await stand.acme.webhooks.rotate_secret(made.id)
    for enabled in (False, True):
        await stand.call("POST", f"/v1/webhook_endpoints/{made.id}", {"enabled": enabled})
    await stand.acme.webhooks.delete(made.id)
    audited = await stand.audited()
    actions = [one.action.removeprefix("webhook_endpoint.") for one in audited]
    assert actions == ["created", "updated", "secret_rotated", "disabled", "enabled", "deleted"]
    assert {(one.organization_id, one.actor, one.resource) for one in audited} == {(ACME, f"key_{ACME}", made.id)}
    told = str([(one.details, one.before) for one in audited])
    assert made.signing_secret not in told
    assert rotated.signing_secret not in told


async def test_the_database_does_not_hold_the_secret_in_the_clear(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    async with stand.database.reading() as session:
        row = (await session.scalars(select(WebhookEndpointRow))).one()
    assert made.signing_secret.removeprefix("whsec_").encode() not in row.secret
    assert (row.former_secret, row.secret_hint) == (None, made.signing_secret_hint)


async def test_another_organization_sees_and_changes_nothing(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    event = await stand.tell()
    theirs = await stand.endpoint("/theirs", client=stand.globex)
    assert [one.id async for one in stand.globex.webhooks.list()] == [theirs.id]
    at = f"/v1/webhook_endpoints/{made.id}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", at, None),
        ("POST", at, {"enabled": False}),
        ("POST", f"{at}/rotate_secret", {}),
        ("POST", f"{at}/test", {"event_type": SUCCEEDED}),
        ("POST", f"{at}/replay", {"since": 0}),
        ("DELETE", at, None),
        ("GET", f"/v1/webhook_events/{event}", None),
        ("POST", f"/v1/webhook_events/{event}/resend", {"webhook_endpoint_id": theirs.id}),
    ]
    for method, path, body in calls:
        status, answer = await stand.call(method, path, body, key="ty-globex")
        assert (status, answer["error"]["code"]) == (404, "not_found"), path
    own_event = await stand.tell(organization=GLOBEX)
    status, _ = await stand.call(
        "POST", f"/v1/webhook_events/{own_event}/resend", {"webhook_endpoint_id": made.id}, key="ty-globex"
    )
    assert status == 404
    assert (await stand.call("GET", "/v1/webhook_events", after=event, key="ty-globex"))[0] == 400
    listed = (await stand.call("GET", "/v1/webhook_events", webhook_endpoint_id=made.id, key="ty-globex"))[1]
    assert listed["data"] == []
    assert (await stand.acme.webhooks.retrieve(made.id)).to_dict()["enabled"] is True


async def test_there_is_a_bound(stand: WebhooksStand) -> None:
    for number in range(MAX_ENDPOINTS):
        await stand.endpoint(f"/{number}")
    with pytest.raises(ConflictError, match="at most 20"):
        await stand.endpoint("/more")
    await stand.endpoint("/theirs", client=stand.globex)


REFUSED = {
    "ftp": "ftp://example.com/hook",
    "no host": "https:///hook",
    "user": "https://me:secret@example.com/hook",
    "fragment": "https://example.com/hook#here",
    "private": "http://10.0.0.1/hook",
    "metadata": "http://169.254.169.254/latest/meta-data",
    "mapped": "http://[::ffff:10.0.0.1]/hook",
    "not a URL": "http://[::1/hook",
    "nul": "http://example.com/\x00",
}


async def test_a_url_that_webhooks_may_not_go_to_is_refused_at_once(stand: WebhooksStand) -> None:
    made = await stand.endpoint()
    for why, url in REFUSED.items():
        with pytest.raises(BadRequestError) as refused:
            await stand.acme.webhooks.create(name="x", url=url, event_types=[SUCCEEDED])
        assert refused.value.param == "url", why
        with pytest.raises(BadRequestError):
            await stand.acme.webhooks.update(made.id, url=url)


async def test_types_are_those_that_there_are(stand: WebhooksStand) -> None:
    wrong: list[Any] = [[], ["no.such.type"], [SUCCEEDED, "batch.completed"]]
    for types in wrong:
        with pytest.raises(BadRequestError):
            await stand.acme.webhooks.create(name="x", url=stand.receiver.url, event_types=types)
