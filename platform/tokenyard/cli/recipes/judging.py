"""Whether an answer is the one that a held-out row wants."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, cast

from tokenyard.core.chat_rows import RowMessage

JudgeName = Literal["exact", "label", "json", "tool_calls", "brief"]
"""`exact`: the same text, whatever its case and its last full stop. `label`: the wanted one of the labels is named, and
no other. `json`: the answer is JSON, and equal. `tool_calls`: the same functions are called with equal arguments.
`brief`: whatever it says, it is one sentence of no more than twice the wanted one's words."""


class ModelAnswer(NamedTuple):
    """What a model said: its text, and its calls as (function, arguments as JSON text)."""

    text: str
    calls: Sequence[tuple[str, str]] = ()


def wanted_answer(message: RowMessage) -> ModelAnswer:
    """Return the answer that the last message of a row is."""
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    return ModelAnswer(message.content or "", calls)


def right_answers(judge: JudgeName, wanted: Sequence[ModelAnswer], given: Sequence[ModelAnswer]) -> list[bool]:
    """Tell of each answer whether it is the wanted one."""
    is_right = _JUDGES[judge](wanted)
    return [is_right(one, other) for one, other in zip(wanted, given, strict=True)]


Judge = Callable[[ModelAnswer, ModelAnswer], bool]
"""Takes the wanted and the given answer."""


def _exact(_all: Sequence[ModelAnswer]) -> Judge:
    return lambda wanted, given: _plain(wanted.text) == _plain(given.text)


def _label(all_wanted: Sequence[ModelAnswer]) -> Judge:
    labels = sorted({_plain(answer.text) for answer in all_wanted})

    def judge(wanted: ModelAnswer, given: ModelAnswer) -> bool:
        text = given.text.casefold()
        named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text)]
        return named == [_plain(wanted.text)]

    return judge


def _json(_all: Sequence[ModelAnswer]) -> Judge:
    return lambda wanted, given: _equal(wanted.text, given.text)


def _tool_calls(_all: Sequence[ModelAnswer]) -> Judge:
    def judge(wanted: ModelAnswer, given: ModelAnswer) -> bool:
        return len(wanted.calls) == len(given.calls) and all(
            one == other and _equal(arguments or "{}", given_arguments or "{}")
            for (one, arguments), (other, given_arguments) in zip(wanted.calls, given.calls, strict=True)
        )

    return judge


def _brief(_all: Sequence[ModelAnswer]) -> Judge:
    def judge(wanted: ModelAnswer, given: ModelAnswer) -> bool:
        sentences = [one for one in re.split(r"[.!?:]+(?:\s+|$)|\n+", given.text) if one.strip()]
        return len(sentences) == 1 and len(given.text.split()) <= 2 * len(wanted.text.split())

    return judge


_JUDGES: Mapping[JudgeName, Callable[[Sequence[ModelAnswer]], Judge]] = {
    "exact": _exact,
    "label": _label,
    "json": _json,
    "tool_calls": _tool_calls,
    "brief": _brief,
}


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".")


def _equal(wanted: str, given: str) -> bool:
    try:
        return _typed(json.loads(given)) == _typed(json.loads(wanted))
    except (ValueError, RecursionError):
        return False


def _typed(value: object) -> object:
    """Keep apart what Python, but not JSON, holds for equal: true and 1."""
    match value:
        case dict():
            return {name: _typed(one) for name, one in cast(dict[str, object], value).items()}
        case list():
            return [_typed(one) for one in value]
        case bool():
            return ("boolean", value)
    return value
