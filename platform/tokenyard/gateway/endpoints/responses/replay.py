"""Tells the events of a response again, as they were told at first, from what is kept of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.responses.output import Deltas, OutputTextMessage, Response, ResponseEvent
from tokenyard.gateway.endpoints.responses.writer import OutputWriter, encoded


class ResponseReplay:
    """The events that come behind number `after`, of a response that may still be made: each one once."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._writer: OutputWriter | None = None
        self._deltas = 0
        self._read: Counter[int] = Counter()
        self._logprobs_read: Counter[int] = Counter()

    def more(self, response: Json, deltas: Sequence[object]) -> Iterator[bytes]:
        """Yield the events that are new since it was last asked; the response only ever grows."""
        told = msgspec.convert(response, Response)
        for event in self._events(told, msgspec.convert(deltas, list[Deltas])):
            if event.sequence_number > self._after:
                yield encoded([event])

    def _events(self, response: Response, rows: list[Deltas]) -> Iterator[ResponseEvent]:
        if response.status == "queued":
            return
        if self._writer is None:
            self._writer = OutputWriter(response.id)
            yield from self._writer.begin(_at_first(response))
        each = ((row.place, *delta) for row in rows for delta in zip_longest(row.sizes, row.logprobs, fillvalue=0))
        for place, size, logprobs in islice(each, self._deltas, None):
            self._deltas += 1
            yield from self._delta(self._writer, response, place, size, logprobs)
        if response.status in ("completed", "incomplete", "failed"):
            yield from self._writer.end(response)

    def _delta(
        self, writer: OutputWriter, response: Response, place: int, size: int, logprobs: int
    ) -> Iterator[ResponseEvent]:
        item, begin = response.output[place], self._read[place]
        self._read[place] += size
        if isinstance(item, OutputTextMessage):
            part, first = item.content[0], self._logprobs_read[place]
            self._logprobs_read[place] += logprobs
            return writer.text(part.text[begin : begin + size], part.logprobs[first : first + logprobs])
        function = {"name": item.name, "arguments": item.arguments[begin : begin + size]}
        return writer.call({"index": place, "id": item.call_id, "function": function})


def _at_first(response: Response) -> Response:
    return replace(
        response,
        status="in_progress",
        output=[],
        usage=UNSET,
        error=None,
        incomplete_details=None,
        completed_at=None,
    )
