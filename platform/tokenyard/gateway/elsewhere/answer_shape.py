"""What a server elsewhere answers, in OpenAI's own fields and no others, under our name of the model. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from tokenyard.gateway.elsewhere.answer_count import whole_number
from tokenyard.gateway.endpoints.invalid_body import Json

_FINISHED = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_HIDDEN = ("reasoning", "reasoning_content")
"""A model's thoughts, which are left out as from our own replicas; they count."""


class WrongAnswer(ValueError):
    """It is not what a server with OpenAI's API answers."""


class Choice(NamedTuple):
    """One choice as the client gets it, and how many bytes of text stand in it, those not shown too."""

    shown: Json
    text_bytes: int

    @property
    def number(self) -> int:
        """Return which of the answer's choices it is."""
        number: int = self.shown["index"]
        return number


class AnswerShape(NamedTuple):
    """What stands over all parts of an answer; `answers` is how many choices it has."""

    chat: bool
    id: str
    model: str
    created: int
    answers: int

    def reply(self, told: Json, choices: list[Json]) -> Json:
        """Return a whole answer without its usage."""
        return self._head(told, "chat.completion" if self.chat else "text_completion", choices)

    def event(self, told: Json, choices: list[Json], usage: Json) -> bytes:
        """Return one event of a stream."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return b"data: " + orjson.dumps(self._head(told, kind, choices) | {"usage": usage}) + b"\n\n"

    def choices(self, told: Json, *, whole: bool) -> Iterator[Choice]:
        """Yield the choices of an answer or event; raises `WrongAnswer`."""
        for place, raw in enumerate(_list(told.get("choices"))):
            choice = _dict(raw)
            index = whole_number(choice.get("index", place))
            if index is None or index >= self.answers:
                raise WrongAnswer("a choice that nobody asked for")
            finish = choice.get("finish_reason")
            if finish is not None and finish not in _FINISHED:
                finish = "stop"
            logprobs = choice.get("logprobs")
            shown: Json = {"index": index, "logprobs": logprobs if isinstance(logprobs, dict) else None}
            shown["finish_reason"] = (finish or "stop") if whole else finish
            part = _dict(choice.get("message" if whole else "delta") or {}) if self.chat else choice
            hidden = sum(_size(part.get(name)) for name in _HIDDEN)
            if not self.chat:
                text = part.get("text")
                shown["text"] = text if isinstance(text, str) else ""
                yield Choice(shown, _size(shown["text"]) + hidden)
                continue
            message, size = _message(part, whole=whole)
            shown["message" if whole else "delta"] = message
            yield Choice(shown, size + hidden)

    def _head(self, told: Json, kind: str, choices: list[Json]) -> Json:
        identity, made, fingerprint = told.get("id"), told.get("created"), told.get("system_fingerprint")
        head: Json = {
            "id": identity if isinstance(identity, str) and identity else self.id,
            "object": kind,
            "created": whole_number(made) or self.created,
            "model": self.model,
            "choices": choices,
        }
        return head | {"system_fingerprint": fingerprint} if isinstance(fingerprint, str) else head


def _message(part: Json, *, whole: bool) -> tuple[Json, int]:
    """Return a message, or more of one, and the bytes of its text."""
    content, refusal = part.get("content"), part.get("refusal")
    shown: Json = {"role": "assistant"} if whole or part.get("role") else {}
    if whole or isinstance(content, str):
        shown["content"] = content if isinstance(content, str) else None
    if whole or isinstance(refusal, str):
        shown["refusal"] = refusal if isinstance(refusal, str) else None
    calls = [_call(_dict(call), place, whole=whole) for place, call in enumerate(_list(part.get("tool_calls") or []))]
    if calls:
        shown["tool_calls"] = calls
    functions = [call.get("function", {}) for call in calls]
    called = sum(_size(function.get(name)) for function in functions for name in ("name", "arguments"))
    return shown, _size(content) + _size(refusal) + called


def _call(raw: Json, place: int, *, whole: bool) -> Json:
    told = _dict(raw.get("function") or {})
    arguments = told.get("arguments")
    if isinstance(arguments, dict):
        arguments = orjson.dumps(arguments).decode()
    function = {
        name: value for name, value in (("name", told.get("name")), ("arguments", arguments)) if value is not None
    }
    if any(not isinstance(value, str) for value in function.values()):
        raise WrongAnswer("a tool call that is none")
    identity = raw.get("id")
    if whole:
        if "name" not in function or not isinstance(identity, str):
            raise WrongAnswer("a tool call that calls nothing")
        return {"id": identity, "type": "function", "function": {"arguments": "", **function}}
    shown: Json = {"index": whole_number(raw.get("index", place)) or 0}
    if isinstance(identity, str) and identity:
        shown |= {"id": identity, "type": "function"}
    return shown | {"function": function} if function else shown


def _size(text: object) -> int:
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0


def _dict(value: Any) -> Json:
    if not isinstance(value, dict):
        raise WrongAnswer("not an object")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WrongAnswer("not an array")
    return value
