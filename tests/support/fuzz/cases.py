"""One fuzz case a seed: the same seed is the same bytes, so that a failure is repeated by its number."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from support.fuzz import parameters, texts
from support.fuzz.bodies import FREE, PAID, Body
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RERANK, RESPONSES, SCORE

PATHS: Mapping[str, int] = {
    CHAT.path: 50,
    COMPLETIONS.path: 14,
    RESPONSES.path: 12,
    MESSAGES.path: 12,
    EMBEDDINGS.path: 3,
    SCORE.path: 1,
    RERANK.path: 1,
    **dict.fromkeys(FREE, 2),
}
"""How often each endpoint is asked. What generates text is what can hold up others."""
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


def fuzz_case(seed: int, model: str, paths: Mapping[str, int] = PATHS) -> FuzzCase:
    random = Random(seed)
    patience_s = random.choice((0.05, 0.3, 1.0, 5.0, 15.0, 15.0, 15.0, 15.0))
    (path,) = random.choices(list(paths), weights=list(paths.values()))
    if random.random() < 0.03:
        return FuzzCase(seed, path, random.choice(_NOT_BODIES), patience_s)
    body: Body = {"model": model, **(PAID | FREE)[path](random)}
    for change in random.choices(_CHANGES, weights=_WEIGHTS, k=random.choice((0, 0, 0, 0, 1))):
        change(random, body)
    # An unpaired surrogate leaves as an escape, which is how a careless client sends it.
    return FuzzCase(seed, path, json.dumps(body).encode(), patience_s)


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


_CHANGES: tuple[Callable[[Random, Body], None], ...] = (
    *(_wrong_value, _without_one, _engines_own, _unknown, _other_model),
)
_WEIGHTS = (4, 1, 1, 1, 1)
