"""One fuzz case a seed: the same seed is the same bytes, so that a failure is repeated by its number."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from support.fuzz import parameters, texts
from support.fuzz.schemas import schema

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
Body = dict[str, Any]
_KNOWN_ROLES = ("user", "system", "assistant", "developer")
_ROLES = ("tool", "function", "", "\ud800", "User", None)
_NOT_BODIES = (
    *(b"", b"null", b"[]", b'"x"', b"{", b'{"model":', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"model": NaN}', b"{}" * 2),
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": "\xff"}',
        b'{"model": 1e999}',
        b"1" * 100_000,
        b'{"model": "a", "model": 1}',
    ),
)


@dataclass(frozen=True)
class FuzzCase:
    """A request to send, and how many seconds its client stays."""

    seed: int
    path: str
    body: bytes
    patience_s: float

    def __str__(self) -> str:
        shown = self.body if len(self.body) < 500 else self.body[:400] + b" ... " + self.body[-60:]
        return f"seed {self.seed}: POST {self.path} {shown!r} ({len(self.body)} bytes, stays {self.patience_s:.1f} s)"


def fuzz_case(seed: int, model: str) -> FuzzCase:
    random = Random(seed)
    patience_s = random.choice((0.05, 0.3, 1.0, 5.0, 15.0, 15.0, 15.0, 15.0))
    path = CHAT if random.random() < 0.8 else COMPLETIONS
    if random.random() < 0.03:
        return FuzzCase(seed, path, random.choice(_NOT_BODIES), patience_s)
    body = _chat(random, model) if path == CHAT else _completion(random, model)
    for change in random.choices(_CHANGES, weights=_WEIGHTS, k=random.choice((0, 0, 1))):
        change(random, body)
    # An unpaired surrogate leaves as an escape, which is how a careless client sends it.
    return FuzzCase(seed, path, json.dumps(body).encode(), patience_s)


def _chat(random: Random, model: str) -> Body:
    body: Body = {"model": model, "messages": _messages(random), "max_tokens": random.choice((1, 4, 16, 64))}
    _set_some(random, body, parameters.CHAT)
    if random.random() < 0.3:
        body["response_format"] = _response_format(random)
    if random.random() < 0.03:
        body["tools"] = _tools(random)
    return body


def _completion(random: Random, model: str) -> Body:
    body: Body = {"model": model, "prompt": _prompt(random), "max_tokens": random.choice((1, 4, 16, 64))}
    _set_some(random, body, parameters.COMPLETIONS)
    return body


def _set_some(random: Random, body: Body, known: dict[str, parameters.Value]) -> None:
    for name in random.sample(sorted(known), k=random.choice((0, 1, 1, 2, 2, 3, 5))):
        body[name] = known[name](random)
    if "max_completion_tokens" in body and random.random() > parameters.BEYOND:
        del body["max_tokens"]
    if random.random() < 0.4:
        body["stream"] = True
    if body.get("stream") and random.random() < 0.5:
        body["stream_options"] = parameters.STREAM_OPTIONS(random)


def _messages(random: Random) -> list[Any]:
    kind = random.random()
    if kind < 0.5:
        return [{"role": "user", "content": texts.plain(random, random.choice((1, 8, 40)))}]
    if kind < 0.9:
        return [_message(random) for _ in range(random.choice((1, 1, 2, 3, 8)))]
    if kind < 0.93:
        return [{"role": "user", "content": texts.plain(random, random.choice((1_500, 6_000, 9_000)))}]
    if kind < 0.96:
        return [{"role": random.choice(("user", "assistant")), "content": "a"}] * random.choice(
            (100, 1_000, 4_096, 4_097)
        )
    return random.choice(([], [[]], [None], ["hello"], [{}], [{"role": "user"}], [{"content": "x"}]))


def _message(random: Random) -> Body:
    message: Body = {
        "role": random.choice(_ROLES) if random.random() < 0.1 else random.choice(_KNOWN_ROLES),
        "content": texts.odd(random),
    }
    kind = random.random()
    if kind < 0.2:
        part = random.choice(
            ({"type": "text", "text": ""}, {"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"})
        )
        message["content"] = [part] * random.choice((1, 3, 3, 4_000, 4_096, parameters.CONTEXT))
    elif kind < 0.22:
        message["content"] = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]
    elif kind < 0.4:
        call = {"id": texts.odd(random), "type": "function", "function": {"name": "f", "arguments": texts.odd(random)}}
        message |= {"role": "assistant", "tool_calls": [call] * random.choice((1, 128)), "content": None}
    elif kind < 0.5:
        message |= {random.choice(("name", "tool_call_id", "refusal", "weight")): texts.odd(random)}
    return message


def _prompt(random: Random) -> object:
    last = parameters.VOCABULARY - 1
    if random.random() < parameters.BEYOND:
        return random.choice(([], [[]], [[1], []], [1, "a"], [2**31], [-1], [True], None, {}, ["hi"] * 129))
    return random.choice(
        (
            *(texts.odd(random), texts.plain(random, 8), [""], [texts.odd(random)] * 2, ["hi"] * 128, ["hi"] * 2),
            *([0], [last], [last + 1], [2**31 - 1], [[1, 2], [last]], [1] * random.choice((10, 2_000, 8_191, 20_000))),
        )
    )


def _response_format(random: Random) -> object:
    kind = random.random()
    if kind < 0.15:
        return random.choice(
            ({"type": "text"}, {"type": "json_object"}, {"type": "xml"}, {"type": "json_schema"}, "json", {})
        )
    named: Body = {"name": random.choice(("x", texts.odd(random))), "schema": schema(random)}
    if random.random() < 0.4:
        named["strict"] = random.choice((True, False))
    return {"type": "json_schema", "json_schema": named}


def _tools(random: Random) -> list[Any]:
    function: Body = {"name": random.choice(("f", "", "a b", texts.odd(random))), "parameters": schema(random)}
    return [{"type": "function", "function": function}] * random.choice((1, 128, 129))


def _wrong_value(random: Random, body: Body) -> None:
    body[random.choice(sorted(body))] = parameters.wrong(random)


def _without_one(random: Random, body: Body) -> None:
    del body[random.choice(sorted(body))]


def _engines_own(random: Random, body: Body) -> None:
    name = random.choice(sorted(parameters.ENGINES_OWN))
    body[name] = parameters.ENGINES_OWN[name](random)


def _unknown(random: Random, body: Body) -> None:
    body[texts.odd(random)] = parameters.wrong(random)


def _other_model(random: Random, body: Body) -> None:
    body["model"] = random.choice(("gpt-4o", "", "ft:x:y:z:1", "../../etc/passwd", "x" * 5_000, texts.odd(random)))


def _wide_and_long(random: Random, body: Body) -> None:
    body |= {"n": random.choice((16, 128)), "max_tokens": random.choice((16, 512)), "temperature": 1}


_CHANGES: tuple[Callable[[Random, Body], None], ...] = (
    *(_wrong_value, _without_one, _engines_own, _unknown, _other_model, _wide_and_long),
)
_WEIGHTS = (4, 1, 1, 1, 1, 6)
