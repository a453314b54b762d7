"""Texts with references, `{{ item.answer }}` or `{{ sample.output_text }}`, filled in for one answer."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import msgspec

Json = dict[str, object]

MAX_TEMPLATE = 32_768  # characters
MAX_TEXT = 100_000  # characters of a filled in text; what is beyond is cut
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLACE = re.compile(r"[0-9]{1,6}")
_QUOTED_CHARACTERS = 40
_OUTPUT_TEXT, _OUTPUT_JSON = ("sample", "output_text"), ("sample", "output_json")


class TemplateProblem(ValueError):
    """What is wrong with a template itself, as a sentence."""


class UnknownReference(Exception):
    """The item has nothing where a template refers to; the message names it."""


class UnreadableSample(Exception):
    """A template refers to something in the answer's JSON, and it is none, or has no such thing."""


class GradedAnswer:
    """An answer, and the `item` that asked for it: its training row, or whatever the caller of a run gives."""

    def __init__(self, item: Json, text: str) -> None:
        self.item = item
        self.text = text

    @cached_property
    def json(self) -> object:
        """The answer as JSON; raises `UnreadableSample` where it is none."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise UnreadableSample("the answer is not JSON") from None


class FilledText(NamedTuple):
    """`cut` where there was more of it than is graded."""

    text: str
    cut: bool


class Template:
    """A parsed template."""

    def __init__(self, source: str) -> None:
        """Raise `TemplateProblem` where `source` is none."""
        if len(source) > MAX_TEMPLATE:
            raise TemplateProblem(f"is longer than {MAX_TEMPLATE} characters")
        self._parts = tuple(_parts(source))

    @property
    def item_paths(self) -> tuple[tuple[str, ...], ...]:
        """What of the item it refers to."""
        return tuple(part[1:] for part in self._parts if not isinstance(part, str) and part[0] == "item")

    @property
    def reads_sample(self) -> bool:
        """Whether it refers to the answer."""
        return any(not isinstance(part, str) and part[0] == "sample" for part in self._parts)

    def filled(self, answer: GradedAnswer, most: int = MAX_TEXT) -> FilledText:
        """Return `most` characters at most.

        Raises `UnknownReference` or `UnreadableSample` where there is not what it refers to.
        """
        texts, left = list[str](), most
        for part in self._parts:
            text = part if isinstance(part, str) else _value(part, answer)
            texts.append(text[:left])
            if len(text) > left:
                return FilledText("".join(texts), cut=True)
            left -= len(text)
        return FilledText("".join(texts), cut=False)


def value_at(item: object, path: tuple[str, ...]) -> object:
    """Return what stands at `path` of an item; `UnknownReference` names what does not."""
    try:
        return _inside(item, path)
    except LookupError:
        raise UnknownReference(f"the item has no {'.'.join(path)!r}") from None


def _parts(source: str) -> Iterator[str | tuple[str, ...]]:
    first, *others = source.split("{{")
    yield first
    for part in others:
        reference, closed, plain = part.partition("}}")
        if not closed:
            raise TemplateProblem("has '{{' without '}}'")
        yield path_of(reference.strip())
        yield plain


def path_of(reference: str) -> tuple[str, ...]:
    """Return the names of a reference such as `item.answer`; `TemplateProblem` where it is none."""
    said = reference if len(reference) <= _QUOTED_CHARACTERS else f"{reference[:_QUOTED_CHARACTERS]}..."
    path = tuple(reference.split("."))
    if not _NAME.fullmatch(path[0]) or not all(_NAME.fullmatch(one) or _PLACE.fullmatch(one) for one in path):
        raise TemplateProblem(f"refers to {said!r}, which is no path like item.answer")
    is_item = path[0] == "item" and len(path) > 1
    if not (is_item or path == _OUTPUT_TEXT or path[:2] == _OUTPUT_JSON):
        raise TemplateProblem(f"refers to {said!r}: there are item.<name>, sample.output_text and sample.output_json")
    return path


def _value(path: tuple[str, ...], answer: GradedAnswer) -> str:
    if path[0] == "item":
        return _text(value_at(answer.item, path[1:]))
    if path == _OUTPUT_TEXT:
        return answer.text
    try:
        return _text(_inside(answer.json, path[2:]))
    except (LookupError, RecursionError):
        raise UnreadableSample(f"the answer has no {'.'.join(path[2:])!r}") from None


def _inside(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list) and _PLACE.fullmatch(name):
            value = value[int(name)]
        else:
            raise LookupError(name)
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
