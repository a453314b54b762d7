"""What the client gets of a replica's answer, whole or while its events pass, and the tokens counted on the way. Pure.

Every event of the replica carries the usage so far, so the count is exact at any moment; the client gets the events
without it, as OpenAI sends them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import orjson

from tokenyard.core.errors import TokenyardError, error_body
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.usage import as_openai, read_usage, usage_of

DONE = b"data: [DONE]\n\n"
MAX_FRAME_BYTES = 32 * 1024 * 1024

_END = b"\n\n"
_DATA = b"data: "


class FrameTooLong(ValueError):
    """One frame grew over `MAX_FRAME_BYTES`."""


class KeptAnswer(msgspec.Struct, frozen=True):
    """An answer that its client wants to find again, and what it was asked with.

    `deltas` tell in which pieces it came, for who reads its events again.
    """

    kind: Literal["response", "chat.completion"]
    id: str
    model: str
    state: str
    metadata: Mapping[str, str]
    input: Sequence[Json]
    output: Json
    previous: str | None = None
    background: bool = False
    deltas: Sequence[Any] = ()


class Answer:
    """One answer. Give a whole one to `whole`, and the pieces of a stream to `feed`; both return what the client gets.

    `include_usage` says whether the client asked for usage. `choices_per_prompt` tells which choices share a prompt,
    because the usage in a frame is that of its own prompt and choice. A frame that says an error is kept in `error`.

    An endpoint whose clients speak another protocol than its replicas overrides `whole`, `told`, `ending` and `failed`,
    and sets `translated`: it cannot be passed on in pieces as it comes.
    """

    translated = False

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

    def whole(self, reply: bytes) -> bytes:
        """Take a whole answer; one that tells no usage, or is no JSON, raises `msgspec.MsgspecError`."""
        self._final = read_usage(reply)
        return reply

    def told(self, chunk: Json, frame: bytes) -> bytes:
        """Return what the client gets of one event, which `frame` still holds as it came."""
        usage = chunk.get("usage")
        if not usage:
            return frame + _END
        if chunk.get("choices"):
            if self._include_usage:
                chunk["usage"] = None
            else:
                del chunk["usage"]
        elif not self._include_usage:
            return b""
        else:
            chunk["usage"] = as_openai(usage)
        return _DATA + orjson.dumps(chunk) + _END

    def ending(self) -> bytes:
        """Return the last bytes of a stream that is complete."""
        return DONE

    def failed(self, error: TokenyardError) -> bytes:
        """Return the last event of a stream that failed."""
        return _DATA + error_body(error) + _END

    def queued(self) -> tuple[bytes, KeptAnswer]:
        """Return what a client is told whose answer is made in the background, and what is kept of it until then."""
        raise NotImplementedError

    def so_far(self) -> KeptAnswer | None:
        """Return what has come of an answer that is kept; None where that is nothing, or all of it."""
        return None

    def kept(self) -> KeptAnswer | None:
        """Return what is to be kept of an answer that has ended; None where its client does not want that."""
        return None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those to send on (may be none). A frame without an end raises `FrameTooLong`."""
        if self.done or self.error is not None or not data:
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
            return self._unread(frame)
        payload = frame[len(_DATA) :]
        if payload == b"[DONE]":
            self.done = True
            return self.ending()
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return self._unread(frame)
        if not isinstance(chunk, dict):
            return self._unread(frame)
        if "error" in chunk:
            self.error = payload
            return b""
        self._count(chunk)
        return self.told(chunk, frame)

    def _unread(self, frame: bytes) -> bytes:
        return b"" if self.translated else frame + _END

    def _count(self, chunk: Json) -> None:
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if choices:
            self.frames += 1
        if not usage:
            return
        if not choices:
            self._final = usage_of(usage)
            return
        index = choices[0].get("index", 0)
        self._completions[index] = usage.get("completion_tokens") or 0
        self._prompts[index // self._choices_per_prompt] = usage.get("prompt_tokens") or 0
