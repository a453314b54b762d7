"""Makes vLLM's replies OpenAI's: their fields, and no others.

vLLM's response models add fields of their own and write null where OpenAI leaves a field out. The models are changed
in place, once, before the engine starts: pydantic's encoder then skips those fields, so that no reply is parsed again
and a streamed chunk costs less than before. What is not named here is left out, so a field that a later vLLM adds
does not get out either.

The text of the reasoning is left out as OpenAI leaves it out; its tokens are counted in `completion_tokens_details`.
vLLM's `/v1/messages` reads its own chat chunks again: streamed, it misses the reasoning. A gateway that answers an
Anthropic message asks for a chat, and is told in it which stop sequence was met.
"""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from pydantic import BaseModel, PlainSerializer
from vllm.entrypoints.generate.base import protocol as base
from vllm.entrypoints.openai.chat_completion import protocol as chat
from vllm.entrypoints.openai.chat_completion import serving as chat_serving
from vllm.entrypoints.openai.completion import protocol as completion
from vllm.entrypoints.openai.completion import serving as completion_serving
from vllm.entrypoints.pooling.embed import protocol as embeddings
from vllm.entrypoints.pooling.scoring import protocol as scores
from vllm.entrypoints.serve.engine import protocol as engine

from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT
from tokenyard_deployments.serving.engine.pinned import UnknownEngine, require

_SERVER_ERRORS = {
    "InternalServerError",
    "NotImplementedError",
    "ServiceUnavailableError",
    *(status.phrase for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
}


_MESSAGES = "/v1/messages"


class _Shape(NamedTuple):
    """What a model writes: `fields` always (null, too, where there is nothing), `optional` only where it is set."""

    model: type[BaseModel]
    fields: tuple[str, ...]
    optional: tuple[str, ...] = ()


_REPLY = ("id", "object", "created", "model", "choices")
# A model stands after those that it contains.
_SHAPES = (
    _Shape(engine.ErrorInfo, ("message", "type", "param", "code")),
    _Shape(engine.ErrorResponse, ("error",)),
    _Shape(engine.PromptTokenUsageInfo, (), ("cached_tokens",)),
    _Shape(engine.CompletionTokenUsageInfo, ("reasoning_tokens",)),
    _Shape(
        engine.UsageInfo,
        ("prompt_tokens", "completion_tokens", "total_tokens"),
        ("prompt_tokens_details", "completion_tokens_details"),
    ),
    _Shape(base.FunctionCall, ("name", "arguments")),
    _Shape(base.ToolCall, ("id", "type", "function")),
    _Shape(base.DeltaFunctionCall, (), ("name", "arguments")),
    _Shape(base.DeltaToolCall, ("index",), ("id", "type", "function")),
    _Shape(base.DeltaMessage, ("content",), ("role", "tool_calls")),
    _Shape(chat.ChatMessage, ("role", "content", "refusal"), ("tool_calls",)),
    _Shape(chat.ChatCompletionLogProb, ("token", "logprob", "bytes")),
    _Shape(chat.ChatCompletionLogProbsContent, ("token", "logprob", "bytes", "top_logprobs")),
    _Shape(chat.ChatCompletionLogProbs, ("content",)),
    _Shape(chat.ChatCompletionResponseChoice, ("index", "message", "logprobs", "finish_reason"), ("stop_reason",)),
    _Shape(chat.ChatCompletionResponse, (*_REPLY, "usage"), ("system_fingerprint",)),
    _Shape(chat.ChatCompletionResponseStreamChoice, ("index", "delta", "logprobs", "finish_reason"), ("stop_reason",)),
    _Shape(chat.ChatCompletionStreamResponse, _REPLY, ("usage", "system_fingerprint")),
    _Shape(completion.CompletionLogProbs, ("text_offset", "token_logprobs", "tokens", "top_logprobs")),
    _Shape(completion.CompletionResponseChoice, ("index", "text", "logprobs", "finish_reason")),
    _Shape(completion.CompletionResponse, (*_REPLY, "usage"), ("system_fingerprint",)),
    _Shape(completion.CompletionResponseStreamChoice, ("index", "text", "logprobs", "finish_reason")),
    _Shape(completion.CompletionStreamResponse, _REPLY, ("usage", "system_fingerprint")),
)
_EMBEDDING_SHAPES = (
    _Shape(engine.ErrorInfo, ("message", "type", "param", "code")),
    _Shape(engine.ErrorResponse, ("error",)),
    _Shape(engine.UsageInfo, ("prompt_tokens", "total_tokens")),
    _Shape(embeddings.EmbeddingResponseData, ("object", "index", "embedding")),
    _Shape(embeddings.EmbeddingResponse, ("object", "model", "data", "usage")),
    _Shape(scores.ScoreResponseData, ("object", "index", "score")),
    _Shape(scores.ScoreResponse, ("id", "object", "created", "model", "data", "usage")),
)


def write_openai_replies(*, generates: bool = True) -> None:
    """Change the response models of this process' vLLM, whose engine generates text or makes embeddings.

    Again does no harm.

    Raises:
        UnknownEngine: they are not the models that are known here, or do not write what they should.
    """
    require(chat_serving, "ChatCompletionLogProbs")
    require(completion_serving, "PromptTokenUsageInfo")
    for shape in _SHAPES if generates else _EMBEDDING_SHAPES:
        _check_known(shape)
        for name, field in shape.model.model_fields.items():
            if name not in (*shape.fields, *shape.optional):
                field.exclude = True
            elif name in shape.optional:
                field.exclude_if = _is_not_to_be_told if name == "stop_reason" else _is_unset
        if shape.model is engine.ErrorInfo:
            _write_as(shape.model, "type", _error_type)
            # vLLM repeats the HTTP status; OpenAI has a word or nothing.
            _write_as(shape.model, "code", lambda _status: None)
        # Messages leave out empty tool calls by a function in Python, called for each chunk: `optional` does it, too.
        shape.model.__pydantic_decorators__.model_serializers.clear()
        shape.model.model_rebuild(force=True)
        _check_written(shape)
    # vLLM has no such field, but writes what a model is given beside its own.
    chat_serving.ChatCompletionLogProbs = partial(chat.ChatCompletionLogProbs, refusal=None)
    completion_serving.PromptTokenUsageInfo = _cached_of_all_prompts


def _cached_of_all_prompts(cached_tokens: int) -> engine.PromptTokenUsageInfo:
    """Return the details of a completion's usage: vLLM tells what the cache gave to one of several prompts only."""
    attempt = CURRENT_ATTEMPT.get()
    return engine.PromptTokenUsageInfo(cached_tokens=attempt.usage.cached_tokens if attempt else cached_tokens)


def _is_unset(value: object) -> bool:
    return value is None or value == []


def _is_not_to_be_told(stop: object) -> bool:
    """Tell whether to leave out what the answer was stopped by: a token, or a stop sequence that nobody asks for."""
    attempt = CURRENT_ATTEMPT.get()
    return not isinstance(stop, str) or attempt is None or attempt.claims.endpoint != _MESSAGES


def _error_type(kind: str) -> str:
    return "server_error" if kind in _SERVER_ERRORS else "invalid_request_error"


def _write_as(model: type[BaseModel], name: str, writer: Callable[[str], str | None]) -> None:
    model.model_fields[name].metadata = [PlainSerializer(writer)]


def _check_known(shape: _Shape) -> None:
    missing = {*shape.fields, *shape.optional} - set(shape.model.model_fields)
    if missing:
        raise UnknownEngine(f"vLLM's {shape.model.__name__} has no {', '.join(sorted(missing))}")


def _check_written(shape: _Shape) -> None:
    blank = shape.model.model_construct(**dict.fromkeys(shape.model.model_fields))
    written = set(blank.model_dump(warnings=False))
    if written != set(shape.fields):
        raise UnknownEngine(f"vLLM's {shape.model.__name__} writes {sorted(written)}, not {sorted(shape.fields)}")
