"""`Idempotency-Key` with OpenAI's own client: its retries cost nothing, and it reads what is sent again."""

from collections.abc import AsyncIterator, Awaitable, Callable

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from support.openai_errors import error_of
from tokenyard.metering.events import Outcome

HEADERS = {"Idempotency-Key": "5f0c-order 17"}


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def _whole(client: AsyncOpenAI, **changes: object) -> tuple[ChatCompletion, dict[str, str]]:
    asked = {"model": BASE.id, "messages": HELLO, "extra_headers": HEADERS, **changes}
    raw = await client.chat.completions.with_raw_response.create(**asked)  # type: ignore[call-overload]
    return raw.parse(), dict(raw.headers)


async def _stream(client: AsyncOpenAI, **more: str) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model=BASE.id, messages=HELLO, stream=True, extra_headers={**HEADERS, **more}
    )
    return [chunk async for chunk in stream]


async def test_the_same_request_again_is_the_same_answer(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    first, headers = await _whole(client)
    again, told = await _whole(client)
    assert again == first
    assert "idempotent-replayed" not in headers
    assert told["idempotent-replayed"] == "true"
    for name in ("x-request-id", "content-type", "openai-organization", "openai-version"):
        assert told[name] == headers[name]
    assert len(gateway.server.log) == 1
    await gateway.settled(1)


async def test_a_stream_again_is_the_same_stream(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    first = await _stream(client)
    assert await _stream(client) == first
    assert await _stream(client, **{"Last-Event-ID": "4"}) == first[4:]
    assert len(gateway.server.log) == 1
    await gateway.settled(1)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_own_retry_is_billed_once(gateway: GatewayStack, stream: bool) -> None:
    """It gives up waiting, comes back while the request still runs, is told when to return, and gets the answer."""
    gateway.server.behaviour.tokens, gateway.server.behaviour.token_delay_s = 3, 1.0
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=8, timeout=0.7) as client:
        if stream:
            assert await _stream(client)
        else:
            _, headers = await _whole(client)
            assert headers["idempotent-replayed"] == "true"
    assert len(gateway.server.log) == 1
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage.completion_tokens == 3


async def test_without_a_key_each_try_is_a_request_of_its_own(gateway: GatewayStack) -> None:
    """What the README says that it costs."""
    gateway.server.behaviour.tokens, gateway.server.behaviour.token_delay_s = 60, 0.05
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=2, timeout=1.0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=BASE.id, messages=HELLO)
    assert len(gateway.server.log) == 3
    assert [event.outcome for event in await gateway.settled(3)] == 3 * [Outcome.CLIENT_LEFT]
    assert all(sent.completion_tokens for sent in gateway.server.log), "each made some, and is charged for it"


async def test_one_that_runs_is_a_conflict(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    gateway.server.behaviour.token_delay_s = 0.3
    stream = await client.chat.completions.create(model=BASE.id, messages=HELLO, stream=True, extra_headers=HEADERS)
    with pytest.raises(openai.ConflictError) as refused:
        await _stream(client)
    assert error_of(refused.value)["code"] == "idempotency_key_in_use"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    await stream.close()


async def test_another_body_is_refused(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    await _whole(client)
    others: list[Callable[[], Awaitable[object]]] = [
        lambda: _whole(client, max_tokens=3),
        lambda: _stream(client),
        lambda: client.completions.create(model=BASE.id, prompt="x", extra_headers=HEADERS),
    ]
    for other in others:
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await other()
        assert error_of(refused.value)["code"] == "idempotency_key_reused"
        assert error_of(refused.value)["param"] == "Idempotency-Key"
    assert len(gateway.server.log) == 1


async def test_completions_too(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    found = [await client.completions.create(model=BASE.id, prompt=["a", "b"], extra_headers=HEADERS) for _ in range(2)]
    assert found[0] == found[1]
    assert len(gateway.server.log) == 1


async def test_a_reply_that_is_not_kept_is_never_run_again(gateway: GatewayStack) -> None:
    gateway.server.behaviour.content = "x" * 200_000
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=2) as client:
        answer, _ = await _whole(client)
        assert len(answer.choices[0].message.content or "") > 1024 * 1024
        with pytest.raises(openai.APIStatusError) as refused:
            await _whole(client)
    assert refused.value.status_code == 410
    assert error_of(refused.value)["code"] == "idempotent_reply_gone"
    assert len(gateway.server.log) == 1, "nor does the client try again"
    await gateway.nothing_is_held()
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.COMPLETED


async def test_bad_headers_are_refused_by_name(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    for name, value in (("Idempotency-Key", "x" * 256), ("Last-Event-ID", "x"), ("Last-Event-ID", "3")):
        with pytest.raises(openai.BadRequestError) as refused:
            await _whole(client, extra_headers={**HEADERS, name: value})
        assert error_of(refused.value)["param"] == name
    with pytest.raises(openai.BadRequestError) as alone:
        await _whole(client, extra_headers={"Last-Event-ID": "3"})
    assert error_of(alone.value)["param"] == "Last-Event-ID"
    assert not gateway.server.log


async def test_the_rest_of_what_is_not_there_is_never_run(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await _stream(client, **{"Last-Event-ID": "4"})
    assert error_of(unknown.value)["code"] == "idempotent_reply_not_found"
    assert not gateway.server.log
    chunks = await _stream(client)
    assert await _stream(client, **{"Last-Event-ID": str(len(chunks))}) == [], "only [DONE] is left"
    with pytest.raises(openai.BadRequestError):
        await _stream(client, **{"Last-Event-ID": str(len(chunks) + 2)})
