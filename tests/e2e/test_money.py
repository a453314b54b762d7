"""Nothing is lost and nothing is charged twice, whatever dies: on the real stack, against the engine's own count."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import redis

from support.servers.whole_stack import MODEL, Stack, eventually

pytestmark = pytest.mark.timeout(600)
LONG: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me a very long story about a river."}],
    "max_tokens": 400,
    "stream": True,
}


@pytest.fixture(autouse=True)
def _books_agree(stack: Stack) -> Iterator[None]:
    """After each test, once no request is open, every invariant holds."""
    yield
    stack.until_ready()
    eventually(lambda: stack.command("reconcile", "--json").returncode == 0, limit_s=90)


def story(stack: Stack, request: str) -> Any:
    return eventually(lambda: _charged(stack, request), limit_s=90)


def _charged(stack: Stack, request: str) -> Any:
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    try:
        answer = httpx.get(f"{stack.url}/admin/requests/{request}", headers=headers, timeout=10)
    except httpx.TransportError:
        return None
    found = answer.json() if answer.status_code == 200 else {}
    return found if found.get("charge") else None


def reports(found: Any) -> dict[str, Any]:
    return {
        witness: attempt[witness]
        for attempt in found["attempts"]
        for witness in ("gateway", "replica")
        if attempt[witness] is not None
    }


def read(stream: Any, chunks: int) -> int:
    seen = 0
    for chunk in stream:
        seen += bool(chunk.choices and chunk.choices[0].delta.content)
        if seen >= chunks:
            break
    return seen


def request_of(stream: Any) -> str:
    return str(stream.response.headers["x-request-id"])


def test_a_completed_request_is_charged_what_both_witnesses_say(stack: Stack) -> None:
    _, client = stack.tenant("both-witnesses")
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=8
    )
    usage = raw.parse().usage
    assert usage
    found = story(stack, raw.headers["x-request-id"])
    seen = eventually(lambda: len(reports(_charged(stack, raw.headers["x-request-id"]))) == 2)
    assert seen
    both = reports(_charged(stack, raw.headers["x-request-id"]))
    assert {(one["prompt_tokens"], one["completion_tokens"]) for one in both.values()} == {
        (usage.prompt_tokens, usage.completion_tokens)
    }
    assert found["charge"]["rule"] == "completed"


def test_a_client_that_leaves_pays_what_the_engine_made(stack: Stack) -> None:
    _, client = stack.tenant("leaver")
    stream = client.chat.completions.create(**LONG)
    seen = read(stream, 10)
    stream.close()
    found = story(stack, request_of(stream))
    replica = reports(found)["replica"]
    assert found["charge"]["rule"] == "client_left"
    assert found["charge"]["completion_tokens"] == replica["completion_tokens"]
    assert seen <= replica["completion_tokens"] < 400


def test_a_gateway_killed_mid_stream_loses_no_token(stack: Stack) -> None:
    _, client = stack.tenant("gateway-killed")
    stream = client.chat.completions.create(**LONG)
    seen = read(stream, 10)
    stack.child("gateway").send_signal(signal.SIGKILL)
    with pytest.raises((openai.APIError, httpx.TransportError)):
        read(stream, 10_000)
    stack.until_ready()
    found = story(stack, request_of(stream))
    replica = reports(found)["replica"]
    assert found["charge"]["completion_tokens"] == replica["completion_tokens"] >= seen
    eventually(lambda: not open_holds(stack))
    eventually(lambda: _works(client), limit_s=60)


def test_redis_killed_under_load_loses_no_request(stack: Stack) -> None:
    organization, client = stack.tenant("redis-killed")
    finished: list[str] = []
    refused: list[int] = []

    def caller() -> None:
        for _ in range(6):
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=MODEL, messages=[{"role": "user", "content": "Count to ten."}], max_tokens=24
                )
                finished.append(raw.headers["x-request-id"])
            except openai.APIStatusError as error:
                refused.append(error.status_code)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(finished) >= 4)
    stack.child("valkey").send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join()
    stack.until_ready()
    eventually(lambda: _works(client), limit_s=60)
    assert set(refused) <= {503}
    for request in finished:
        assert story(stack, request)["charge"]["rule"] in ("completed", "gateway_lost")
    usage = stack.admin("GET", f"/admin/organizations/{organization}/usage")
    assert usage
    with redis.Redis(port=int(stack.environment["TOKENYARD_VALKEY_PORT"])) as server:
        bound = server.config_get("maxmemory", "maxmemory-policy")
    assert bound == {"maxmemory": str(2 << 30), "maxmemory-policy": "noeviction"}


def test_a_replica_killed_mid_stream_is_charged_what_was_relayed(stack: Stack) -> None:
    _, client = stack.tenant("replica-killed")
    stream = client.chat.completions.create(**LONG)
    seen = read(stream, 10)
    replicas = stack.replicas()
    assert replicas
    for process in replicas:
        process.kill()
    with pytest.raises((openai.APIError, httpx.TransportError)):
        seen += read(stream, 10_000)
    found = story(stack, request_of(stream))
    assert found["charge"]["rule"] == "replica_lost"
    assert seen <= found["charge"]["completion_tokens"] < 400
    eventually(lambda: _works(client), limit_s=240)


def test_a_spent_wallet_refuses_and_says_so(stack: Stack) -> None:
    organization, client = stack.tenant("spender")
    stack.admin("PATCH", f"/admin/organizations/{organization}", {"limits": {"monthly_spend_dollars": "0.000001"}})

    def refused() -> openai.RateLimitError | None:
        try:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=64)
        except openai.RateLimitError as error:
            return error
        return None

    error = eventually(refused, limit_s=45)
    assert error.response.headers["x-should-retry"] == "false"
    assert error.type == "insufficient_quota"


def test_a_revoked_key_is_dead_at_once(stack: Stack) -> None:
    organization, client = stack.tenant("revoked")
    assert _works(client)
    (key,) = stack.admin("GET", f"/admin/organizations/{organization}/api_keys")["data"]
    stack.admin("DELETE", f"/admin/organizations/{organization}/api_keys/{key['id']}")
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=4)


def open_holds(stack: Stack) -> int:
    with redis.Redis(port=int(stack.environment["TOKENYARD_VALKEY_PORT"])) as client:
        return sum(int(client.zcard(key)) for key in client.scan_iter("*:holds"))


def _works(client: openai.OpenAI) -> bool:
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    except openai.APIError:
        return False
    return True
