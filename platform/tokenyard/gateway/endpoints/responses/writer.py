"""Writes the output of a response item by item, and says with numbered events what it does."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from tokenyard.gateway.endpoints.chat import ChosenTokenLogprob
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.responses.items import item_id
from tokenyard.gateway.endpoints.responses.output import (
    Deltas,
    OutputFunctionCall,
    OutputItem,
    OutputText,
    OutputTextMessage,
    Response,
    ResponseEvent,
    event_logprobs,
)

_ENCODER = msgspec.json.Encoder()


class OutputWriter:
    """Items are added as the model begins them and done at the end; a text is done where something else begins.

    What an event carries is as it is at that moment, so events are to be encoded before the next one is asked for.
    `deltas` tell in which pieces `items` came: with them, the same events can be told again.
    """

    def __init__(self, response: str) -> None:
        self._response = response
        self._numbers = 0
        self._message: OutputTextMessage | None = None
        self._calls: dict[int, OutputFunctionCall] = {}
        self._texts: list[str] = []
        self._arguments: dict[str, list[str]] = {}
        self.items: list[OutputItem] = []
        self.deltas: list[Deltas] = []

    def event(self, kind: str, /, **fields: Any) -> ResponseEvent:
        event = ResponseEvent(kind, self._numbers, **fields)
        self._numbers += 1
        return event

    def begin(self, response: Response) -> Iterator[ResponseEvent]:
        """Say that the response has begun; of one that is made in the background, first that it waits."""
        if response.background:
            queued = replace(response, status="queued")
            yield self.event("response.created", response=queued)
            yield self.event("response.queued", response=queued)
        else:
            yield self.event("response.created", response=response)
        yield self.event("response.in_progress", response=response)

    def text(self, more: str, logprobs: list[ChosenTokenLogprob]) -> Iterator[ResponseEvent]:
        """Add to the message that is being written, or begin one."""
        message = self._message
        if message is None:
            message = self._message = OutputTextMessage(self._next_id("msg"), "in_progress", [])
            yield self._added(message)
            message.content.append(OutputText(""))
            yield self.event("response.content_part.added", **self._place(message), part=message.content[0])
        self._texts.append(more)
        message.content[0].logprobs.extend(logprobs)
        place = self._place(message)
        self._note(place["output_index"], len(more), len(logprobs))
        yield self.event("response.output_text.delta", **place, delta=more, logprobs=event_logprobs(logprobs))

    def call(self, told: Json) -> Iterator[ResponseEvent]:
        """Begin or go on with the function call of one `tool_calls` entry of a chat completion's delta."""
        index, function = told.get("index", 0), told.get("function") or {}
        call = self._calls.get(index)
        if call is None:
            yield from self._close_message("completed")
            call_id = told.get("id") or f"call_{self._next_id('fc').partition('_')[2]}"
            call = OutputFunctionCall(self._next_id("fc"), "in_progress", call_id, function.get("name") or "", "")
            self._calls[index] = call
            self._arguments[call.id] = []
            yield self._added(call)
            self._note(self._index(call), 0)
        more = function.get("arguments")
        if more:
            place = self._index(call)
            self._arguments[call.id].append(more)
            self._note(place, len(more))
            yield self.event("response.function_call_arguments.delta", item_id=call.id, output_index=place, delta=more)

    def so_far(self) -> list[OutputItem]:
        """Return the items as they are now, of which some may not be done."""
        return [self._as_it_is(item) for item in self.items]

    def _as_it_is(self, item: OutputItem) -> OutputItem:
        if isinstance(item, OutputFunctionCall):
            return replace(item, arguments="".join(self._arguments[item.id]))
        if item is not self._message:
            return item
        return replace(item, content=[replace(item.content[0], text="".join(self._texts))])

    def end(self, response: Response) -> Iterator[ResponseEvent]:
        """Say that all is done, and then how the response ended; where it is not whole, its last item is not either."""
        status: Literal["incomplete", "completed"] = "completed" if response.status == "completed" else "incomplete"
        last = self.items[-1] if self.items else None
        yield from self._close_message(status if self._message is last else "completed")
        for call in self._calls.values():
            call.arguments = "".join(self._arguments[call.id])
            yield self.event(
                "response.function_call_arguments.done",
                item_id=call.id,
                output_index=self._index(call),
                name=call.name,
                arguments=call.arguments,
            )
            yield self._done(call, status if call is last else "completed")
        yield self.event(f"response.{response.status}", response=response)

    def _close_message(self, status: Literal["completed", "incomplete"]) -> Iterator[ResponseEvent]:
        message = self._message
        if message is None:
            return
        self._message = None
        part = message.content[0]
        part.text = "".join(self._texts)
        self._texts.clear()
        place, logprobs = self._place(message), event_logprobs(part.logprobs)
        yield self.event("response.output_text.done", **place, text=part.text, logprobs=logprobs)
        yield self.event("response.content_part.done", **place, part=part)
        yield self._done(message, status)

    def _added(self, item: OutputItem) -> ResponseEvent:
        self.items.append(item)
        return self.event("response.output_item.added", output_index=len(self.items) - 1, item=item)

    def _done(self, item: OutputItem, status: Literal["completed", "incomplete"]) -> ResponseEvent:
        item.status = status
        return self.event("response.output_item.done", output_index=self._index(item), item=item)

    def _note(self, place: int, size: int, logprobs: int = 0) -> None:
        if not self.deltas or self.deltas[-1].place != place:
            self.deltas.append(Deltas(place, []))
        row = self.deltas[-1]
        if logprobs or row.logprobs:
            row.logprobs += [0] * (len(row.sizes) - len(row.logprobs)) + [logprobs]
        row.sizes.append(size)

    def _place(self, message: OutputTextMessage) -> Json:
        return {"item_id": message.id, "output_index": self._index(message), "content_index": 0}

    def _index(self, item: OutputItem) -> int:
        return next(place for place, one in enumerate(self.items) if one is item)

    def _next_id(self, prefix: str) -> str:
        return item_id(prefix, self._response, "o", len(self.items))


def encoded(events: Iterable[ResponseEvent]) -> bytes:
    """Return events as server-sent ones."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (event.type.encode(), _ENCODER.encode(event)) for event in events)
