"""Reads usage out of what a replica answers to chat and completions."""

import json

import msgspec
from msgspec import UNSET, UnsetType

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.invalid_body import Json

USAGE_AT_END_BYTES = 4096
"""The usage of a whole reply stands within so many bytes of its end."""

_JSON = json.JSONDecoder()


class PromptTokensDetails(msgspec.Struct):
    """`cached_tokens` are part of the prompt's tokens."""

    cached_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct):
    """`reasoning_tokens` are part of the completion's tokens."""

    reasoning_tokens: int = 0


class CompletionUsage(msgspec.Struct):
    """What the request used, over all of its choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | UnsetType = UNSET
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET


class _WholeReply(msgspec.Struct):
    usage: Json | None = None


_WHOLE_REPLY = msgspec.json.Decoder(_WholeReply)


def read_usage(body: bytes) -> TokenUsage:
    """Return the usage in a whole reply; one that tells none, or is no JSON, raises `msgspec.MsgspecError`."""
    usage = _WHOLE_REPLY.decode(body).usage
    if usage is None:
        raise msgspec.ValidationError("the reply tells no usage")
    return usage_of(usage)


def read_usage_at_end(end: bytes) -> TokenUsage:
    """Return the usage from the last bytes of a whole reply; one that tells none raises `ValueError`."""
    # Within a string its quotes would be escaped; a deeper key of this name comes before the usage of the reply.
    _, found, after = end.rpartition(b'"usage":')
    if not found:
        raise ValueError("the reply tells no usage at its end")
    usage, _ = _JSON.raw_decode(after.decode(errors="replace").lstrip())
    if not isinstance(usage, dict):
        raise ValueError("the reply tells no usage at its end")
    return usage_of(usage)


def usage_of(usage: Json) -> TokenUsage:
    details = usage.get("prompt_tokens_details") or {}
    return TokenUsage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )


def as_openai(usage: Json) -> Json:
    """Return a replica's `usage` as OpenAI tells it."""
    counted = usage_of(usage)
    details = usage.get("completion_tokens_details") or {}
    shown = CompletionUsage(
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        total_tokens=counted.total_tokens,
        prompt_tokens_details=PromptTokensDetails(counted.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(details.get("reasoning_tokens") or 0),
    )
    built: Json = msgspec.to_builtins(shown)
    return built
