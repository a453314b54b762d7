"""The one table of what each paid endpoint takes. A parameter that is not here is refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenyard.gateway.endpoints.messages import messages, prompt, response_format, tool_choice, tools
from tokenyard.gateway.endpoints.parameters import (
    Check,
    boolean,
    ignored,
    integer,
    logit_bias,
    number,
    only,
    refused,
    stop,
    text,
)
from tokenyard.gateway.endpoints.stream_options import stream_options

MAX_CHOICES = 128
MAX_TOKENS = 10_000_000
_INT64 = 2**63

_NO_TOOLS_ELSEWHERE = "use 'tools' and 'tool_choice'."

# Accepted and without effect, as with OpenAI: bookkeeping of its own platform, and hints.
_IGNORED: Mapping[str, Check] = dict.fromkeys(
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
    ignored,
)

_SAMPLING: Mapping[str, Check] = {
    "frequency_penalty": number(-2, 2),
    "logit_bias": logit_bias,
    "presence_penalty": number(-2, 2),
    "seed": integer(-_INT64, _INT64 - 1),
    "stop": stop,
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    # Not OpenAI's, but what users of open models ask for; they cost nothing.
    "min_p": number(0, 1),
    "repetition_penalty": number(0.01, 10),
    "top_k": integer(-1, 1_000_000),
}

_COMMON: Mapping[str, Check] = {
    **_IGNORED,
    **_SAMPLING,
    "model": text,
    "n": integer(1, MAX_CHOICES),
    "stream": boolean,
    "stream_options": stream_options,
}

CHAT_FIELDS: Mapping[str, Check] = {
    **_COMMON,
    "audio": refused("this model answers in text only."),
    "function_call": refused(_NO_TOOLS_ELSEWHERE),
    "functions": refused(_NO_TOOLS_ELSEWHERE),
    "logprobs": boolean,
    "max_completion_tokens": integer(1, MAX_TOKENS),
    "max_tokens": integer(1, MAX_TOKENS),
    "messages": messages,
    "modalities": only(["text"]),
    "moderation": refused("it is not offered here."),
    "parallel_tool_calls": boolean,
    "reasoning_effort": only("none"),
    "response_format": response_format,
    "tool_choice": tool_choice,
    "tools": tools,
    "top_logprobs": integer(0, 20),
    "verbosity": only("medium"),
    "web_search_options": refused("it is not offered here."),
}

COMPLETION_FIELDS: Mapping[str, Check] = {
    **_COMMON,
    "best_of": integer(1, 20),
    "echo": boolean,
    "logprobs": integer(0, 5),
    "max_tokens": integer(0, MAX_TOKENS),
    "prompt": prompt,
    "suffix": only(""),
}


@dataclass(frozen=True)
class Endpoint:
    """One paid endpoint. `input` is the required field that holds the prompt.

    `default_max_tokens` None means the model's own default.
    """

    path: str
    fields: Mapping[str, Check]
    input: str
    max_tokens_fields: tuple[str, ...]
    default_max_tokens: int | None = None


CHAT = Endpoint("/v1/chat/completions", CHAT_FIELDS, "messages", ("max_completion_tokens", "max_tokens"))
COMPLETIONS = Endpoint("/v1/completions", COMPLETION_FIELDS, "prompt", ("max_tokens",), default_max_tokens=16)
ENDPOINTS = (CHAT, COMPLETIONS)
