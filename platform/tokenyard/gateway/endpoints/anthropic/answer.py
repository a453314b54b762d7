"""Makes Anthropic's message of what a server of chat completions answers, whole and while its events pass. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta

from tokenyard.core.errors import TokenyardError
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.anthropic.errors import anthropic_error
from tokenyard.gateway.endpoints.anthropic.message import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageDelta,
    MessageEnd,
    MessageStart,
    MessageStop,
    MessageUsage,
    OutputMessage,
    StopReason,
    TextContent,
    TextDelta,
    ToolUseContent,
)
from tokenyard.gateway.endpoints.body import AnswerHead
from tokenyard.gateway.endpoints.chat_messages import ToolCall
from tokenyard.gateway.endpoints.invalid_body import Json

_ERROR_EVENT = b"event: error\ndata: "
_END = b"\n\n"
_DISORDERED = b'{"error":{"message":"More of a tool call came after its end."}}'


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _ChatReply(msgspec.Struct):
    choices: Annotated[list[_Choice], Meta(min_length=1)]


_REPLY = msgspec.json.Decoder(_ChatReply)
_INPUT = msgspec.json.Decoder(Json)


class MessageAnswer(Answer):
    """One message. A stop sequence is told where the model server tells it in `stop_reason`, as our replicas do; one
    elsewhere is read in OpenAI's own fields, which do not tell it from the end of a turn.
    """

    translated = True

    def __init__(self, head: AnswerHead) -> None:
        super().__init__(include_usage=True)
        self._head = head
        self._started = False
        self._blocks = 0
        self._open: str | None = None
        self._call: int | None = None
        self._blank = True  # nothing of a tool's input is there yet
        self._odd: list[str] = []  # an input that is no object, held until its end
        self._calls = 0
        self._finish: str | None = None
        self._stop: str | None = None

    def whole(self, reply: bytes) -> bytes:
        super().whole(reply)
        choice = _REPLY.decode(reply).choices[0]
        said = choice.message
        text, calls = said.content or said.refusal, said.tool_calls or ()
        self._note_end(choice.finish_reason, choice.stop_reason)
        self._calls = len(calls)
        content: list[TextContent | ToolUseContent] = [TextContent(text)] if text else []
        content.extend(
            ToolUseContent(call.id, call.function.name, _whole_input(call.function.arguments)) for call in calls
        )
        end = self._end()
        return msgspec.json.encode(self._message(content, end.stop_reason, end.stop_sequence))

    def told(self, chunk: Json, frame: bytes) -> bytes:
        choices = chunk.get("choices")
        if not choices:
            return b""
        choice = choices[0]
        delta = choice.get("delta") or {}
        self._note_end(choice.get("finish_reason"), choice.get("stop_reason"))
        events = self._start()
        if text := delta.get("content") or delta.get("refusal"):
            events += self._text(text)
        for call in delta.get("tool_calls") or ():
            events += self._called(call)
        return events

    def ending(self) -> bytes:
        events = self._start() + self._close()
        return events + _event(MessageDelta(self._end(), MessageUsage.of(self.usage))) + _event(MessageStop())

    def failed(self, error: TokenyardError) -> bytes:
        return _ERROR_EVENT + anthropic_error(error, self._head.id) + _END

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _event(MessageStart(self._message([], None, None)))

    def _message(
        self, content: list[TextContent | ToolUseContent], stop_reason: StopReason | None, stop_sequence: str | None
    ) -> OutputMessage:
        name, usage = self._head.id.removeprefix("req_"), MessageUsage.of(self.usage)
        return OutputMessage(f"msg_{name}", "assistant", self._head.model, content, stop_reason, stop_sequence, usage)

    # What is said.

    def _text(self, text: str) -> bytes:
        opened = b"" if self._open == "text" else self._begin(TextContent(""))
        return opened + _event(ContentBlockDelta(self._blocks - 1, TextDelta(text)))

    def _called(self, call: Json) -> bytes:
        """Tell more of a tool's use; which one it is stands in the first piece of each."""
        function, index, opened = call.get("function") or {}, call.get("index", 0), b""
        if self._open != "tool_use" or index != self._call:
            if self._call is not None and index <= self._call:
                self.error = _DISORDERED
                return b""
            self._call = index
            self._calls += 1
            opened = self._begin(ToolUseContent(call.get("id") or "", function.get("name") or "", {}))
            self._blank = True
        return opened + self._input(function.get("arguments") or "")

    def _input(self, more: str) -> bytes:
        """Tell more of a tool's input; clients read no other JSON than objects."""
        more = more.lstrip() if self._blank else more
        if not more:
            return b""
        if self._odd or (self._blank and more[0] != "{"):
            self._odd.append(more)
        self._blank = False
        return b"" if self._odd else _event(ContentBlockDelta(self._blocks - 1, InputJsonDelta(more)))

    def _begin(self, block: TextContent | ToolUseContent) -> bytes:
        ended = self._close()
        self._open = str(block.__struct_config__.tag)
        self._blocks += 1
        return ended + _event(ContentBlockStart(self._blocks - 1, block))

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        stop, odd = _event(ContentBlockStop(self._blocks - 1)), "".join(self._odd)
        self._odd = []
        if not odd:
            return stop
        told = msgspec.json.encode(_as_invalid(odd)).decode()
        return _event(ContentBlockDelta(self._blocks - 1, InputJsonDelta(told))) + stop

    # Why it ended.

    def _note_end(self, finish: str | None, stop: str | int | None) -> None:
        self._finish = finish or self._finish
        if isinstance(stop, str):
            self._stop = stop

    def _end(self) -> MessageEnd:
        if self._finish == "length":
            return MessageEnd("max_tokens", None)
        if self._finish == "content_filter":
            return MessageEnd("refusal", None)
        if self._stop is not None:  # also amid a tool's input, which then is not to be used
            return MessageEnd("stop_sequence", self._stop)
        return MessageEnd("tool_use" if self._calls else "end_turn", None)


def _whole_input(arguments: str) -> Json:
    try:
        return _INPUT.decode(arguments or "{}")
    except msgspec.MsgspecError:
        return _as_invalid(arguments)


def _as_invalid(arguments: str) -> Json:
    return {"INVALID_JSON": arguments}


def _event(event: msgspec.Struct) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event.__struct_config__.tag).encode(), msgspec.json.encode(event))
