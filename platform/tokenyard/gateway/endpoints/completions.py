"""`POST /v1/completions`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.catalog import BaseModel
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.endpoint import Endpoint, Prompt
from tokenyard.gateway.endpoints.fields import BOOLEAN, Json, RequestField, integer, only, sized, wrong_type
from tokenyard.gateway.endpoints.shared_fields import MAX_TOKENS, SHARED_FIELDS
from tokenyard.gateway.endpoints.usage import CompletionUsage, StreamUsage, read_usage

MAX_PROMPTS = 128
MAX_TOKEN_ID = 2**31 - 1
DEFAULT_MAX_TOKENS = 16
# A start token, and one more for tokenizers that put a space in front of the text.
EXTRA_TOKENS = 2


def prompt(name: str, value: Any) -> str | list[Any]:
    """Accept text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array", value)
    sized(name, value, len(value))
    if _is_tokens(value):
        return value
    if not (all(isinstance(one, str) for one in value) or all(_is_tokens(one) for one in value)):
        raise InvalidRequest(
            f"Invalid type for '{name}': expected a string, an array of strings, an array of token ids, or an array "
            "of arrays of token ids.",
            param=name,
            code="invalid_type",
        )
    sized(name, value, MAX_PROMPTS)
    return value


def _is_tokens(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one <= MAX_TOKEN_ID for one in value)
    )


_TEXT = {"type": "string"}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}, "minItems": 1}
_SEVERAL = [{"type": "array", "items": one, "minItems": 1, "maxItems": MAX_PROMPTS} for one in (_TEXT, _TOKENS)]
_Prompt = Annotated[Any, Meta(extra_json_schema={"anyOf": [_TEXT, _TOKENS, *_SEVERAL]})]

COMPLETION_FIELDS: Mapping[str, RequestField] = {
    **SHARED_FIELDS,
    "best_of": integer(1, 20, "Only at the value of `n`."),
    "echo": BOOLEAN,
    "logprobs": integer(0, 5),
    "max_tokens": integer(0, MAX_TOKENS, f"Default: {DEFAULT_MAX_TOKENS}. 0 only with `echo`."),
    "prompt": RequestField(prompt, _Prompt, "One prompt or several, as text or as token ids."),
    "suffix": only(""),
}


class CompletionLogprobs(msgspec.Struct):
    """Log probabilities of a text's tokens, one of each list a token; a first token that was given has none."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(msgspec.Struct):
    """One text, or in a stream more of it: there `finish_reason` is null before its end."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class Completion(msgspec.Struct):
    """A whole answer, or one event of a stream, of which only the last one before `[DONE]` may tell the usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType = UNSET


def _check(_body: Json, _model: BaseModel) -> None:
    """Every model does all of it."""


def _prompts(body: Json, _model: BaseModel) -> list[Prompt]:
    given = body["prompt"]
    several = isinstance(given, list) and not isinstance(given[0], int)
    return [
        Prompt([one], EXTRA_TOKENS) if isinstance(one, str) else Prompt([], len(one) + EXTRA_TOKENS)
        for one in (given if several else [given])
    ]


COMPLETIONS = Endpoint(
    path="/v1/completions",
    name="Completion",
    summary="Continue a text",
    fields=COMPLETION_FIELDS,
    input="prompt",
    max_tokens_fields=("max_tokens",),
    check=_check,
    prompts=_prompts,
    reply=Completion,
    event=Completion,
    read_usage=read_usage,
    stream_usage=StreamUsage,
    default_max_tokens=DEFAULT_MAX_TOKENS,
)
