"""One answer of a server elsewhere, read as a replica's would be: `gateway.ports.Reply`."""

import orjson

from tokenyard.gateway.elsewhere.answer_count import AnswerCount, usage_told
from tokenyard.gateway.elsewhere.answer_shape import AnswerShape, WrongAnswer
from tokenyard.gateway.elsewhere.errors import MAX_RETRY_AFTER_S, refusal_told, status_told
from tokenyard.gateway.elsewhere.events import ServerEvents
from tokenyard.gateway.path.upstream_errors import AttemptFailed, model_failed
from tokenyard.gateway.ports import Reply

MAX_WHOLE_BYTES = 16 * 1024 * 1024


class ServerReply:
    """`private` are the words that no error may show. What is wrong with a whole answer is an answer without usage."""

    def __init__(
        self, reply: Reply, shape: AnswerShape, count: AnswerCount, private: tuple[str, ...], *, tells_of_choice: bool
    ) -> None:
        self._reply = reply
        self._shape = shape
        self._count = count
        self._private = private
        self._events = ServerEvents(shape, count, private, tells_of_choice=tells_of_choice)
        self._ended = False
        self.status = status_told(reply.status)
        self.length: int | None = None

    @property
    def retry_after_s(self) -> float | None:
        told = self._reply.retry_after_s
        return None if told is None else min(told, MAX_RETRY_AFTER_S)

    async def chunk(self) -> bytes:
        """Return the next events of a stream; of a whole answer `beginning` has returned all."""
        while not self._ended:
            data = await self._reply.chunk()
            self._ended = not data
            if out := self._events.feed(data) if data else self._events.ended():
                return out
        return b""

    async def beginning(self, size: int) -> bytes:
        """Return a whole answer or the body of an error, however long; one over the bounds raises `AttemptFailed`."""
        if self.status != 200:
            return refusal_told(await self._reply.beginning(size), self._private, self._shape.model)
        body = await self._reply.beginning(MAX_WHOLE_BYTES)
        self._ended = True
        if len(body) > MAX_WHOLE_BYTES:
            raise AttemptFailed(model_failed())
        try:
            return self._whole(body)
        except (orjson.JSONDecodeError, WrongAnswer):
            return b"{}"

    def close(self) -> None:
        self._reply.close()

    def _whole(self, body: bytes) -> bytes:
        told = orjson.loads(body)
        if not isinstance(told, dict) or not told.get("choices"):
            raise WrongAnswer("no choices")
        choices = []
        for choice in self._shape.choices(told, whole=True):
            self._count.passed(choice.number, choice.text_bytes)
            choices.append(choice.shown)
        usage = told.get("usage")
        # The usage stands last, where it is looked for in a long answer.
        return orjson.dumps(self._shape.reply(told, choices) | {"usage": usage_told(self._count.total(usage), usage)})
