"""A server elsewhere that refuses, is busy, fails, hangs, breaks off, tells wrong usage, or talks nonsense."""

import asyncio

import orjson
import pytest
from aiohttp import ClientSession

from support.elsewhere_stack import SOLD, ElsewhereStack, told_outside
from support.fakes.server_elsewhere import USAGE, Elsewhere
from support.gateway_stack import HELLO, KEY, until
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.elsewhere import events as events_module
from tokenyard.gateway.elsewhere import reply as reply_module
from tokenyard.metering.events import Outcome, Settled

WHOLE: dict[str, object] = {"model": SOLD, "messages": HELLO}
STREAM: dict[str, object] = {**WHOLE, "stream": True}
both = pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
# "say hello to me" has 15 bytes, and the template of the test model adds 14 tokens.
GUESS = 4 + 14
HELD = 15 + 14


async def _answer(stack: ElsewhereStack, body: dict[str, object]) -> tuple[int, str, dict[str, str]]:
    async with ClientSession() as session:
        response = await stack.gateway.post(session, body)
        text = await response.text()
        headers = {name.lower(): value for name, value in response.headers.items()}
    assert not list(told_outside(stack.gateway, text + str(headers)))
    return response.status, text, headers


async def _charged_nothing(stack: ElsewhereStack) -> None:
    (settled,) = await stack.gateway.settled()
    assert settled.outcome is Outcome.FAILED
    await stack.gateway.nothing_is_held()
    assert (await stack.gateway.budget()).pending == 0


async def _settled(stack: ElsewhereStack) -> Settled:
    (settled,) = await stack.gateway.settled()
    await stack.gateway.nothing_is_held()
    return settled


@both
async def test_a_refusal_of_the_request_is_the_clients(stack: ElsewhereStack, body: dict[str, object]) -> None:
    said = {"message": "their-model-2026 does not support temperature.", "param": "temperature", "code": "x"}
    stack.server.behaviour = Elsewhere(status=400, body=orjson.dumps({"error": said}))
    status, text, _ = await _answer(stack, body)
    error = orjson.loads(text)["error"]
    assert (status, error["param"]) == (400, "temperature")
    assert error["message"] == f"{SOLD} does not support temperature."
    await _charged_nothing(stack)


@both
@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503])
async def test_it_is_left_alone_for_as_long_as_it_says(
    stack: ElsewhereStack, status: int, body: dict[str, object]
) -> None:
    told = b'{"error": {"message": "Rate limit of organization org-the-operators", "type": "tokens"}}'
    stack.server.behaviour = Elsewhere(status=status, body=told, headers={"retry-after": "30"})
    assert (await _answer(stack, body))[0] == 503
    stack.server.behaviour = Elsewhere()
    found, text, headers = await _answer(stack, body)
    assert found == 503
    assert orjson.loads(text)["error"]["code"] == "server_is_overloaded"
    assert 25 < int(headers["retry-after"]) <= 30
    assert len(stack.server.log) == 1
    settled = await stack.gateway.settled(2)
    assert {one.outcome for one in settled} == {Outcome.FAILED}


async def test_after_its_pause_it_is_asked_again(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(status=503, headers={"retry-after": "0"})
    assert (await _answer(stack, WHOLE))[0] == 503
    stack.server.behaviour = Elsewhere()
    async with ClientSession() as session:

        async def served() -> bool:
            return (await stack.gateway.post(session, WHOLE)).status == 200

        await until(served)


@both
async def test_a_failure_at_one_request_keeps_nobody_else_from_it(
    stack: ElsewhereStack, body: dict[str, object]
) -> None:
    stack.server.behaviour = Elsewhere(status=500, body=b"<html>Traceback their-model-2026</html>")
    status, text, _ = await _answer(stack, body)
    assert (status, orjson.loads(text)["error"]["code"]) == (500, "model_failed")
    await _charged_nothing(stack)
    stack.server.behaviour = Elsewhere()
    assert (await _answer(stack, body))[0] == 200


async def test_nobody_listens(stack: ElsewhereStack) -> None:
    stack.sell(url="https://127.0.0.1:9/v1")
    status, _, headers = await _answer(stack, WHOLE)
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    await _charged_nothing(stack)


@both
async def test_one_that_hangs_is_given_up(stack: ElsewhereStack, body: dict[str, object]) -> None:
    stack.server.behaviour = Elsewhere(silent_at=0)
    stack.set_base(max_silence_s=0.3, max_request_s=0.6)
    status, text, _ = await _answer(stack, body)
    # A stream has begun to be read there, but its client has nothing yet.
    assert (status, orjson.loads(text)["error"]["code"]) == (504, "timeout")
    await until(lambda: stack.server.log[0].left)
    await _charged_nothing(stack)


@both
async def test_cut_before_anything_is_there(stack: ElsewhereStack, body: dict[str, object]) -> None:
    stack.server.behaviour = Elsewhere(cut_at=0 if body is STREAM else 3)
    assert (await _answer(stack, body))[0] == 502
    await _charged_nothing(stack)


async def test_cut_in_the_middle_of_a_stream(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(cut_at=3, delay_s=0.01)
    status, text, _ = await _answer(stack, STREAM)
    assert status == 200
    assert text.strip().split("\n\n")[-1].startswith('data: {"error":')
    assert "word3" in text
    settled = await _settled(stack)
    # Three words of six bytes each, with their spaces: two tokens a word would be the guess by bytes.
    assert (settled.outcome, settled.usage) == (Outcome.REPLICA_LOST, TokenUsage(GUESS, 5))


async def test_silent_in_the_middle_of_a_stream(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(silent_at=3)
    stack.set_base(max_silence_s=0.3)
    _, text, _ = await _answer(stack, STREAM)
    assert text.strip().split("\n\n")[-1].startswith('data: {"error":')
    assert (await _settled(stack)).usage == TokenUsage(GUESS, 5)


@both
async def test_no_usage(stack: ElsewhereStack, body: dict[str, object]) -> None:
    """Eight words of six bytes are 48 bytes, twelve tokens."""
    stack.server.behaviour = Elsewhere(usage=None)
    assert (await _answer(stack, body))[0] == 200
    settled = await _settled(stack)
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(GUESS, 12))


@both
@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ({"prompt_tokens": 10**9, "completion_tokens": 10**9}, TokenUsage(HELD, 64)),
        ({"prompt_tokens": 7, "completion_tokens": 0}, TokenUsage(GUESS, 12)),
        ({"prompt_tokens": -7, "completion_tokens": -1}, TokenUsage(GUESS, 12)),
        ({"prompt_tokens": "many"}, TokenUsage(GUESS, 12)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 10**9}}, TokenUsage(7, 8, 7)),
    ],
    ids=["too much", "nothing", "negative", "words", "more cached than there is"],
)
async def test_wrong_usage_is_never_charged_above_what_was_held(
    stack: ElsewhereStack, told: dict[str, object], counted: TokenUsage, body: dict[str, object]
) -> None:
    stack.server.behaviour = Elsewhere(usage=told)
    assert (await _answer(stack, body))[0] == 200
    assert (await _settled(stack)).usage == counted


@both
@pytest.mark.parametrize(
    "raw",
    [b"", b"garbage", b"<html>their-model-2026</html>", b"[]", b'{"choices": []}', b'{"choices": [{"index": 99}]}'],
)
async def test_garbage(stack: ElsewhereStack, raw: bytes, body: dict[str, object]) -> None:
    stack.server.behaviour = Elsewhere(raw_at=1, raw=raw if body is WHOLE else b"data: " + raw + b"\n\n")
    status, text, _ = await _answer(stack, body)
    assert (status, orjson.loads(text)["error"]["code"]) == (500, "model_failed")
    await _charged_nothing(stack)


async def test_garbage_in_the_middle_of_a_stream(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(raw_at=3, raw=b"data: garbage their-model-2026\n\n")
    _, text, _ = await _answer(stack, STREAM)
    assert text.strip().split("\n\n")[-1].startswith('data: {"error":')
    settled = await _settled(stack)
    assert (settled.outcome, settled.usage) == (Outcome.REPLICA_LOST, TokenUsage(GUESS, 3))


@both
async def test_enormous_answers_are_given_up(
    stack: ElsewhereStack, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "MAX_WHOLE_BYTES", 100_000)
    monkeypatch.setattr(events_module, "MAX_EVENT_BYTES", 100_000)
    stack.server.behaviour = Elsewhere(raw_at=1, raw=b'data: {"choices": [{"x": "' + b"y" * 1_000_000)
    assert (await _answer(stack, body))[0] == 500
    await _charged_nothing(stack)


async def test_a_stream_that_ends_without_end(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(usage=None, finishes=False, says_done=False)
    _, text, _ = await _answer(stack, STREAM)
    assert text.strip().split("\n\n")[-1].startswith('data: {"error":')
    assert (await _settled(stack)).outcome is Outcome.REPLICA_LOST


async def test_a_stream_that_only_forgets_to_say_done(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(says_done=False)
    _, text, _ = await _answer(stack, STREAM)
    assert text.endswith("data: [DONE]\n\n")
    assert (await _settled(stack)).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("words", [1, 5])
async def test_a_client_that_leaves_pays_at_once_for_what_it_got(stack: ElsewhereStack, words: int) -> None:
    stack.server.behaviour = Elsewhere(words=500, delay_s=0.02)
    async with ClientSession() as session:
        response = await stack.gateway.post(session, {**STREAM, "max_tokens": 500})
        while f"word{words} " not in (await response.content.readline()).decode():
            pass
        response.close()
        settled = await _settled(stack)
        await until(lambda: stack.server.log[0].left)
    assert settled.outcome is Outcome.LEFT_ELSEWHERE
    assert settled.usage.prompt_tokens == GUESS
    sent = stack.server.log[0].sent
    assert words <= settled.usage.completion_tokens <= sum(len(f"word{at} ") for at in range(1, sent + 1)) // 4 + 1
    figures = await stack.gateway.budget()
    assert figures.held == 0
    assert figures.pending == GUESS * 100 + settled.usage.completion_tokens * 1000


async def test_a_client_that_leaves_before_its_whole_answer_pays_the_prompt(stack: ElsewhereStack) -> None:
    stack.server.behaviour = Elsewhere(delay_s=30)
    async with ClientSession() as session:
        asking = asyncio.ensure_future(
            session.post(
                f"{stack.gateway.url}/v1/chat/completions", json=WHOLE, headers={"authorization": f"Bearer {KEY}"}
            )
        )
        await until(lambda: stack.server.log)
        asking.cancel()
        await asyncio.wait([asking])
        settled = await _settled(stack)
        await until(lambda: stack.server.log[0].left)
    assert (settled.outcome, settled.usage) == (Outcome.LEFT_ELSEWHERE, TokenUsage(GUESS, 0))
