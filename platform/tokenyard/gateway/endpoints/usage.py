"""Reads usage out of what a replica answers to chat and completions, whole or while its events pass. Pure.

Every event of the replica carries the usage so far, so the count is exact at any moment; the client gets the events
without it, as OpenAI sends them.
"""

import json

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.invalid_body import Json

DONE = b"data: [DONE]\n\n"
MAX_FRAME_BYTES = 32 * 1024 * 1024
USAGE_AT_END_BYTES = 4096
"""The usage of a whole reply stands within so many bytes of its end."""

_END = b"\n\n"
_DATA = b"data: "
_JSON = json.JSONDecoder()


class FrameTooLong(ValueError):
    """One frame grew over `MAX_FRAME_BYTES`."""


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


class StreamUsage:
    """Feed it what the replica sends; it returns what the client gets.

    `include_usage` says whether the client asked for usage. `choices_per_prompt` tells which choices share a prompt,
    because the usage in a frame is that of its own prompt and choice. A frame that says an error is kept in `error`.
    """

    def __init__(self, *, include_usage: bool, choices_per_prompt: int = 1) -> None:
        self._include_usage = include_usage
        self._choices_per_prompt = choices_per_prompt
        self._parts: list[bytes] = []  # of a frame whose end has not come
        self._held = 0
        self._final: TokenUsage | None = None
        self._prompts: dict[int, int] = {}
        self._completions: dict[int, int] = {}
        self.frames = 0
        self.done = False
        self.error: bytes | None = None

    @property
    def complete(self) -> bool:
        """Whether the replica told the final usage: all tokens have passed."""
        return self._final is not None

    @property
    def begun(self) -> bool:
        """Whether a token has passed, or the end: before that only roles may have been told."""
        return self.done or self._final is not None or self.usage.completion_tokens > 0

    @property
    def usage(self) -> TokenUsage:
        """The usage of what has passed. A replica that does not tell it as it goes is counted by frames."""
        if self._final is not None:
            return self._final
        if self._completions:
            return TokenUsage(sum(self._prompts.values()), sum(self._completions.values()))
        return TokenUsage(0, self.frames)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those to send on (may be none). A frame without an end raises `FrameTooLong`."""
        if self.done or self.error is not None:
            return b""
        # A long frame comes in many pieces: what came before is not to be copied and looked through with each of them.
        last = self._parts[-1][-1:] if self._parts else b""
        self._parts.append(data)
        self._held += len(data)
        frames = []
        if _END in last + data:
            frames = b"".join(self._parts).split(_END)
            self._parts = [frames.pop()]
            self._held = len(self._parts[0])
        if self._held > MAX_FRAME_BYTES:
            raise FrameTooLong(f"a frame of over {MAX_FRAME_BYTES} bytes")
        out = []
        for frame in frames:
            out.append(self._pass(frame))
            if self.done or self.error is not None:
                break
        return b"".join(out)

    def _pass(self, frame: bytes) -> bytes:
        if not frame.startswith(_DATA):
            return frame + _END
        payload = frame[len(_DATA) :]
        if payload == b"[DONE]":
            self.done = True
            return DONE
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return frame + _END
        if not isinstance(chunk, dict):
            return frame + _END
        if "error" in chunk:
            self.error = payload
            return b""
        return self._count(chunk, frame)

    def _count(self, chunk: Json, frame: bytes) -> bytes:
        choices = chunk.get("choices")
        if choices:
            self.frames += 1
        usage = chunk.get("usage")
        if not usage:
            return frame + _END
        if not choices:
            self._final = usage_of(usage)
            if not self._include_usage:
                return b""
            return _DATA + orjson.dumps({**chunk, "usage": _as_openai(self._final, usage)}) + _END
        index = choices[0].get("index", 0)
        self._completions[index] = usage.get("completion_tokens") or 0
        self._prompts[index // self._choices_per_prompt] = usage.get("prompt_tokens") or 0
        if self._include_usage:
            chunk["usage"] = None
        else:
            del chunk["usage"]
        return _DATA + orjson.dumps(chunk) + _END


def usage_of(usage: Json) -> TokenUsage:
    details = usage.get("prompt_tokens_details") or {}
    return TokenUsage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )


def _as_openai(counted: TokenUsage, usage: Json) -> Json:
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
