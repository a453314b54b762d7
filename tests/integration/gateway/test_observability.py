"""Health, metrics and the access log of a running gateway."""

import orjson
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from support.fakes.admission_requests import ORGANIZATION
from support.fakes.gateway_ports import BASE
from support.gateway_stack import KEY, GatewayStack, until

SECRET = "a-prompt-nobody-may-log"
ASK: dict[str, object] = {"model": BASE.id, "messages": [{"role": "user", "content": SECRET}]}


async def _samples(gateway: GatewayStack, session: ClientSession) -> dict[tuple[str, ...], float]:
    text = await (await session.get(f"{gateway.url}/metrics")).text()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        await (await gateway.post(session, ASK)).read()
        await (await gateway.post(session, {**ASK, "stream": True})).read()
        await (await gateway.post(session, {**ASK, "wrong": 1})).read()
        await gateway.settled(2)
        samples = await _samples(gateway, session)
    assert samples["tokenyard_tokens_total", BASE.id, ORGANIZATION, "output"] == 16
    assert samples["tokenyard_tokens_total", BASE.id, ORGANIZATION, "input"] == 2
    assert samples["tokenyard_refusals_total", "unknown_parameter"] == 1
    assert samples["tokenyard_http_request_duration_seconds_count", "/v1/chat/completions", "200"] == 2
    assert samples["tokenyard_http_request_duration_seconds_count", "/v1/chat/completions", "400"] == 1
    # An answer that comes whole has no first token that anybody could see.
    assert samples["tokenyard_time_to_first_token_seconds_count", BASE.id] == 1
    assert samples["tokenyard_requests_in_flight",] == 0


async def test_the_access_log_holds_no_content(gateway: GatewayStack) -> None:
    async with ClientSession(headers={"x-client-request-id": "my-own-id"}) as session:
        response = await gateway.post(session, {**ASK, "user": SECRET})
        request = response.headers["x-request-id"]
    await until(lambda: gateway.log)
    text = b"".join(gateway.log).decode()
    entry = orjson.loads(text.splitlines()[0])
    assert entry["request"] == request
    assert entry["client_request"] == "my-own-id"
    assert (entry["organization"], entry["outcome"], entry["completion_tokens"]) == (ORGANIZATION, "completed", 8)
    assert SECRET not in text
    assert KEY not in text


async def test_health(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        assert (await session.get(f"{gateway.url}/health")).status == 200
        assert (await session.get(f"{gateway.url}/ready")).status == 200
