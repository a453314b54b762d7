"""What a model server without a model answers where texts are embedded or compared: vectors made of their words."""

import base64
import struct
from typing import Any

Body = dict[str, Any]
EXTRA = 2
"""Tokens around each text."""


def is_pooled(body: Body) -> bool:
    return "input" in body or "queries" in body


def pooled_tokens(body: Body) -> int:
    return sum(map(_tokens, _prompts(body)))


def pooled_reply(body: Body) -> Body:
    tokens = pooled_tokens(body)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    head = {"object": "list", "model": body["model"]}
    if "queries" in body:
        documents = _several(body["documents"])
        scores = [{"object": "score", "index": at, "score": _tokens(one) / 100} for at, one in enumerate(documents)]
        return {"id": "score-1", "created": 1_700_000_000, **head, "data": scores, "usage": usage}
    vectors = [_vector(one)[: body.get("dimensions", 3)] for one in _prompts(body)]
    written = [_written(one, body["encoding_format"]) for one in vectors]
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(written)]
    return {**head, "data": data, "usage": usage}


def _vector(prompt: str | list[int]) -> list[float]:
    return [_tokens(prompt) / 8, 0.5, -0.25]


def _written(vector: list[float], form: str) -> list[float] | str:
    return vector if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _prompts(body: Body) -> list[Any]:
    if "input" in body:
        return _several(body["input"])
    return [*_several(body["queries"]), *_several(body["documents"])]


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) and not isinstance(value[0], int) else [value]


def _tokens(prompt: str | list[int]) -> int:
    return len(prompt.split()) + EXTRA if isinstance(prompt, str) else len(prompt)
