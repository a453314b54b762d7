"""A chat completion, whole or while its events pass, told as a response."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from tokenyard.core.errors import TokenyardError
from tokenyard.gateway.endpoints.answer import Answer, KeptAnswer
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.responses.items import Item, as_kept
from tokenyard.gateway.endpoints.responses.output import (
    IncompleteDetails,
    Response,
    ResponseEvent,
    ResponseFailure,
    ResponseUsage,
    output_logprobs,
)
from tokenyard.gateway.endpoints.responses.writer import OutputWriter, encoded

_INCOMPLETE: dict[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class _WholeChat(msgspec.Struct):
    """What a whole chat completion must have."""

    choices: Annotated[list[Json], Meta(min_length=1)]
    usage: Json


_COMPLETION = msgspec.json.Decoder(_WholeChat)


class ResponseAnswer(Answer):
    """Gives the response itself, or its events. Where it is stored, `items` are what was given for it.

    Who streams a response that is made in the background is told first that it waits; the events go on from there.
    """

    translated = True

    def __init__(self, response: Response, items: Sequence[Item] | None, *, stream: bool) -> None:
        super().__init__(include_usage=True)
        self._response = response
        self._items = items
        self._stream = stream
        self._writer = OutputWriter(response.id)
        self._begun = False
        self._finish_reason: str | None = None
        self._reasoning_tokens = 0
        self._ended = False

    def whole(self, reply: bytes) -> bytes:
        super().whole(reply)
        completion = _COMPLETION.decode(reply)
        self._note_reasoning(completion.usage)
        choice = completion.choices[0]
        message: Json = choice.get("message") or {}
        for _ in self._take({**message, "tool_calls": _numbered(message)}, choice):
            pass  # there are no events of a whole answer
        for _ in self._end():
            pass
        return msgspec.json.encode(self._response)

    def told(self, chunk: Json, frame: bytes) -> bytes:
        return encoded(self._told(chunk))

    def _begin(self) -> Iterator[ResponseEvent]:
        if not self._begun:
            self._begun = True
            yield from islice(self._writer.begin(self._response), self._waited, None)

    @property
    def _waited(self) -> int:
        """How many events tell that the response waits."""
        return 2 if self._response.background else 0

    def _told(self, chunk: Json) -> Iterator[ResponseEvent]:
        yield from self._begin()
        if chunk.get("usage"):
            self._note_reasoning(chunk["usage"])
        for choice in chunk.get("choices") or ():
            yield from self._take(choice.get("delta") or {}, choice)

    def _take(self, said: Json, choice: Json) -> Iterator[ResponseEvent]:
        text = said.get("content") or said.get("refusal")
        if text:
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            yield from self._writer.text(text, output_logprobs(logprobs))
        for call in said.get("tool_calls") or ():
            yield from self._writer.call(call)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def ending(self) -> bytes:
        return encoded(self._end())

    def _end(self) -> Iterator[ResponseEvent]:
        reason = _INCOMPLETE.get(self._finish_reason or "")
        self._ended = True
        self._response = replace(
            self._response,
            status="completed" if reason is None else "incomplete",
            output=self._writer.items,
            usage=ResponseUsage.of(self.usage, self._reasoning_tokens),
            incomplete_details=None if reason is None else IncompleteDetails(reason),
            completed_at=int(time.time()) if reason is None else None,
        )
        return self._writer.end(self._response)

    def failed(self, error: TokenyardError) -> bytes:
        return encoded(self._fail(error))

    def _fail(self, error: TokenyardError) -> Iterator[ResponseEvent]:
        yield from self._begin()
        self._ended = True
        failure = ResponseFailure.of(error)
        self._response = replace(self._response, status="failed", output=self._writer.items, error=failure)
        yield from self._writer.end(self._response)

    def queued(self) -> tuple[bytes, KeptAnswer]:
        waits = islice(OutputWriter(self._response.id).begin(self._response), self._waited)
        queued = replace(self._response, status="queued")
        return encoded(waits) if self._stream else msgspec.json.encode(queued), self._kept(queued, self._items or ())

    def so_far(self) -> KeptAnswer | None:
        if self._items is None or self._ended or not self._writer.deltas:
            return None
        return self._kept(replace(self._response, output=self._writer.so_far()), self._items)

    def kept(self) -> KeptAnswer | None:
        return None if self._items is None or not self._ended else self._kept(self._response, self._items)

    def _kept(self, response: Response, items: Sequence[Item]) -> KeptAnswer:
        return KeptAnswer(
            kind="response",
            id=response.id,
            model=response.model,
            state=response.status,
            metadata=response.metadata,
            previous=response.previous_response_id,
            input=as_kept(items, response.id),
            output=msgspec.to_builtins(response),
            background=response.background,
            deltas=msgspec.to_builtins(self._writer.deltas),
        )

    def _note_reasoning(self, usage: Json) -> None:
        details = usage.get("completion_tokens_details") or {}
        self._reasoning_tokens = details.get("reasoning_tokens") or 0


def _numbered(message: Json) -> list[Any]:
    """Return the calls of a whole message as the events of a stream tell them."""
    return [{"index": place, **call} for place, call in enumerate(message.get("tool_calls") or ())]
