"""The stream of a server elsewhere as a replica would send it: with the usage so far in each event. Pure."""

import orjson

from tokenyard.gateway.elsewhere.answer_count import AnswerCount, usage_told
from tokenyard.gateway.elsewhere.answer_shape import AnswerShape, WrongAnswer
from tokenyard.gateway.elsewhere.errors import error_told
from tokenyard.gateway.endpoints.answer import DONE
from tokenyard.gateway.endpoints.invalid_body import Json

MAX_EVENT_BYTES = 4 * 1024 * 1024
_FAILED = b'data: {"error":{"message":"","type":"server_error"}}\n\n'


class ServerEvents:
    """Give it what comes; it returns what a replica would have sent. What cannot be read ends the stream as an error.

    `tells_of_choice` says that the usage in an event is that of its choice alone, as vLLM's is.
    """

    def __init__(
        self, shape: AnswerShape, count: AnswerCount, private: tuple[str, ...], *, tells_of_choice: bool
    ) -> None:
        self._shape = shape
        self._count = count
        self._private = private
        self._tells_of_choice = tells_of_choice or shape.answers == 1
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._held = 0
        self._last: Json = {}
        self._told: Json | None = None
        self._told_apart = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; may return none."""
        if self._over:
            return b""
        self._held += len(data)
        if b"\n" not in data:
            self._line.append(data)
            return self._failed() if self._held > MAX_EVENT_BYTES else b""
        *lines, rest = b"".join((*self._line, data)).split(b"\n")
        self._line = [rest]
        out = []
        for line in lines:
            out.append(self._take(line.removesuffix(b"\r")))
            if self._over:
                return b"".join(out)
        self._held = len(rest) + sum(map(len, self._data))
        if self._held > MAX_EVENT_BYTES:
            out.append(self._failed())
        return b"".join(out)

    def ended(self) -> bytes:
        """Return what is missing where the body ends without `[DONE]`, though the answer is there."""
        whole = self._told_apart or self._seen == self._finished
        return self._done() if whole and self._seen and not self._over else b""

    def _take(self, line: bytes) -> bytes:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
            return b""
        if line or not self._data:
            return b""  # a comment or a field that says nothing here
        payload = b"\n".join(self._data)
        self._data = []
        if payload == b"[DONE]":
            return self._done()
        try:
            return self._event(payload)
        except (orjson.JSONDecodeError, WrongAnswer):
            return self._failed()

    def _event(self, payload: bytes) -> bytes:
        told = orjson.loads(payload)
        if not isinstance(told, dict):
            raise WrongAnswer("not an object")
        if told.get("error") or told.get("object") == "error":
            self._over = True
            return b"data: " + error_told(told, self._private, self._shape.model) + b"\n\n"
        self._last, usage = told, told.get("usage")
        if usage and (self._shape.answers == 1 or not told.get("choices")):
            self._told = usage
        if not told.get("choices"):
            self._told_apart = self._told_apart or bool(usage)
            return b""
        out = []
        for choice in self._shape.choices(told, whole=False):
            self._count.passed(choice.number, choice.text_bytes)
            self._seen.add(choice.number)
            if choice.shown["finish_reason"]:
                self._finished.add(choice.number)
            counted = self._count.of_choice(choice.number, usage if self._tells_of_choice else None)
            out.append(self._shape.event(told, [choice.shown], usage_told(counted)))
        return b"".join(out)

    def _done(self) -> bytes:
        if not self._seen:
            return self._failed()  # nothing was answered
        self._over = True
        usage = usage_told(self._count.total(self._told), self._told)
        return self._shape.event(self._last, [], usage) + DONE

    def _failed(self) -> bytes:
        self._over = True
        return _FAILED
