"""The fields that both ways of generating text take: sampling, streaming, and what is accepted without effect."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tokenyard.gateway.endpoints.fields import (
    BOOLEAN,
    IGNORED,
    TEXT,
    Json,
    RequestField,
    boolean,
    integer,
    invalid,
    mapping,
    number,
    sized,
    unknown,
    wrong_type,
)

MAX_CHOICES = 128
MAX_TOKENS = 10_000_000
MAX_STOPS = 4
_INT64 = 2**63

# Sent upstream with every stream, so that what passed is known exactly at any moment.
ALWAYS_ASKED = {"include_usage": True, "continuous_usage_stats": True}

_MODELS_OWN = "Default: the model's own `sampling`, as `GET /v1/models/{model}` shows it."


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`include_usage` adds a last event with the usage of the whole request; `include_obfuscation` changes nothing."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def stream_options(name: str, value: Any) -> dict[str, bool]:
    given = mapping(name, value)
    for field, flag in given.items():
        if field not in StreamOptions.__struct_fields__:
            raise unknown(f"{name}.{field}")
        if flag is not None:
            boolean(f"{name}.{field}", flag)
    return {"include_usage": bool(given.get("include_usage"))}


def stop(name: str, value: Any) -> list[str]:
    """Accept a stop sequence or up to four."""
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        raise wrong_type(name, "a string or an array of strings", value)
    sized(name, sequences, MAX_STOPS, least=0)
    if "" in sequences:
        raise invalid(name, "a stop sequence may not be empty.")
    return sequences


_BIAS = number(-100, 100)


def logit_bias(name: str, value: Any) -> Json:
    """Accept {token id: bias from -100 to 100}."""
    for token, bias in mapping(name, value).items():
        if not token.isascii() or not token.isdecimal():
            raise invalid(name, f"the key '{token[:32]}' is not a token id.")
        _BIAS.check(f"{name}.{token[:32]}", bias)
    return mapping(name, value)


_Stop = Annotated[str, Meta(min_length=1)]
_Stops = _Stop | Annotated[list[_Stop], Meta(max_length=MAX_STOPS)]
_Biases = dict[Annotated[str, Meta(pattern="^[0-9]+$")], Annotated[float, Meta(ge=-100, le=100)]]

SHARED_FIELDS: Mapping[str, RequestField] = {
    "frequency_penalty": number(-2, 2),
    "logit_bias": RequestField(logit_bias, _Biases, "A bias for each token id."),
    "model": RequestField(TEXT.check, str, "A base model, a fine-tuned model, or an alias of the organization's own."),
    "n": integer(1, MAX_CHOICES, "How many choices to make for each prompt. Default: 1."),
    "presence_penalty": number(-2, 2),
    "seed": integer(-_INT64, _INT64 - 1),
    "stop": RequestField(stop, _Stops),
    "stream": BOOLEAN,
    "stream_options": RequestField(stream_options, StreamOptions, "Only with `stream`."),
    "temperature": number(0, 2, _MODELS_OWN),
    "top_p": number(0, 1, _MODELS_OWN),
    # Not OpenAI's, but what users of open models ask for; they cost nothing.
    "min_p": number(0, 1, _MODELS_OWN),
    "repetition_penalty": number(0.01, 10, _MODELS_OWN),
    "top_k": integer(-1, 1_000_000, _MODELS_OWN),
    # Bookkeeping of OpenAI's own platform, and hints.
    **dict.fromkeys(
        (
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        ),
        IGNORED,
    ),
}
