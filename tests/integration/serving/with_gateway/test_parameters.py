"""What each parameter does to the answers of a real engine, as OpenAI's client asks for it through a gateway."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types import Completion
from openai.types.chat import ChatCompletion

from support.gateway_stack import KEY, GatewayStack
from support.replica_caller import MODEL

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


async def _chat(client: AsyncOpenAI, question: str = "Count from one to ten.", **more: Any) -> ChatCompletion:
    body: dict[str, Any] = {"max_tokens": 24, "temperature": 0, **more}
    answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}], **body)
    assert isinstance(answer, ChatCompletion)
    return answer


async def _text(client: AsyncOpenAI, **more: Any) -> str:
    return (await _chat(client, **more)).choices[0].message.content or ""


async def _completion(client: AsyncOpenAI, **more: Any) -> Completion:
    body: dict[str, Any] = {"max_tokens": 8, "temperature": 0, **more}
    answer = await client.completions.create(model=MODEL, prompt="One, two, three,", **body)
    assert isinstance(answer, Completion)
    return answer


async def test_logprobs_are_of_the_answers_tokens(client: AsyncOpenAI) -> None:
    (choice,) = (await _chat(client, logprobs=True, top_logprobs=3)).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(one.token for one in tokens).startswith((choice.message.content or "")[:20])
    assert all(len(one.top_logprobs) == 3 for one in tokens)
    # At temperature 0 the likeliest was taken.
    assert all(one.logprob == max(other.logprob for other in one.top_logprobs) for one in tokens)


async def test_n_answers_differ_and_are_charged_each(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    answer = await _chat(client, "Tell me a story.", n=3, temperature=1.5, seed=1)
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    (settled,) = await gateway.settled()
    assert answer.usage is not None
    assert settled.usage.completion_tokens == answer.usage.completion_tokens > 24


async def test_stop_ends_the_answer_before_it(client: AsyncOpenAI) -> None:
    whole = await _text(client)
    word = whole.split()[3]
    stopped = (await _chat(client, stop=[word, "never said"])).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == whole[: whole.index(word)]


async def test_max_tokens_ends_it_after_as_many(client: AsyncOpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        bound: dict[str, Any] = {"max_tokens": None, name: 3}
        answer = await _chat(client, **bound)
        assert answer.usage is not None
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


async def test_a_seed_repeats_an_answer(client: AsyncOpenAI) -> None:
    wild = {"temperature": 1.5, "max_tokens": 16}
    first, again, other = [await _text(client, seed=seed, **wild) for seed in (5, 5, 6)]
    assert first == again != other


async def test_top_p_of_nothing_leaves_the_likeliest(client: AsyncOpenAI) -> None:
    assert await _text(client, temperature=2, top_p=0) == await _text(client)


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
async def test_a_penalty_keeps_it_from_saying_the_same(client: AsyncOpenAI, name: str) -> None:
    asked = {"question": "Say yes twenty times: yes yes yes yes", "max_tokens": 40}
    plain, changed = [await _text(client, **asked, **more) for more in ({}, {name: 2.0})]
    assert plain != changed
    assert _repeated(changed) <= _repeated(plain)


def _repeated(text: str) -> int:
    words = text.split()
    return len(words) - len(set(words))


async def test_a_bias_forces_or_bans_a_token(client: AsyncOpenAI) -> None:
    banned = (await _completion(client, logprobs=1)).choices[0]
    assert banned.logprobs is not None
    forced = await _completion(client, logit_bias={"100": 100}, max_tokens=3)
    assert len(set(forced.choices[0].text)) <= len(forced.choices[0].text) / 3 + 1
    assert forced.choices[0].text != banned.text[: len(forced.choices[0].text)]


async def test_content_in_parts_is_read_as_one(client: AsyncOpenAI) -> None:
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]
    messages: Any = [{"role": "user", "content": parts}]
    answer = await client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=16)
    assert "Paris" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("strict", [True, False, None])
async def test_a_schema_is_held(client: AsyncOpenAI, strict: bool | None) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": strict}}
    told = json.loads(await _text(client, question="Tell me of Rome.", response_format=shape, max_tokens=64))
    assert told["city"] in ("Paris", "Rome")
    assert isinstance(told["people"], int)


async def test_a_json_object(client: AsyncOpenAI) -> None:
    answer = await _chat(client, "Give me JSON.", response_format={"type": "json_object"}, max_tokens=64)
    text = answer.choices[0].message.content or ""
    assert text.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "[a"}}, "required": ["a"]},
        {"$ref": "#/$defs/nowhere"},
    ],
    ids=["pattern", "reference"],
)
async def test_a_schema_that_the_engine_cannot_hold_is_refused(client: AsyncOpenAI, schema: dict[str, Any]) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "odd", "schema": schema, "strict": True}}
    with pytest.raises(BadRequestError) as refused:
        await _chat(client, response_format=shape)
    assert refused.value.param == "response_format"


async def test_echo_and_logprobs_of_a_completion(client: AsyncOpenAI) -> None:
    (choice,) = (await _completion(client, echo=True, logprobs=2)).choices
    assert choice.text.startswith("One, two, three,")
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert (choice.logprobs.token_logprobs or [])[0] is None
