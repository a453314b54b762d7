"""A row of a training file of chats: what it may be, said once for upload, validation and training.

Of tools and calls, unknown fields are dropped, as serving drops them.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Json = dict[str, object]

_ROW_FIELDS = frozenset(("messages", "tools", "parallel_tool_calls"))
_PLAIN_FIELDS = frozenset(("role", "content", "name"))
_FIELDS_OF_ROLE = {
    "system": _PLAIN_FIELDS,
    "developer": _PLAIN_FIELDS,
    "user": _PLAIN_FIELDS,
    "assistant": _PLAIN_FIELDS | {"weight", "tool_calls"},
    "tool": _PLAIN_FIELDS | {"tool_call_id"},
}
_QUOTED_CHARACTERS = 40
_PROBLEM_CHARACTERS = 100


class RowProblem(ValueError):
    """What is wrong with a row of a training file, as a sentence without its line number."""


class RowFunctionCall(msgspec.Struct, frozen=True):
    """`arguments` are a JSON object as text, as in the API; no text at all stands for an empty object."""

    name: str
    arguments: str

    def __post_init__(self) -> None:
        try:
            msgspec.json.decode(self.arguments or "{}", type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise ValueError("`arguments` must be a JSON object as text") from None


class RowToolCall(msgspec.Struct, frozen=True):
    """A call that the assistant made."""

    id: str
    function: RowFunctionCall
    type: Literal["function"] = "function"


class RowMessage(msgspec.Struct, frozen=True):
    """`content` is None only beside `tool_calls`; `weight` 0 keeps an assistant's message from being learnt."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: list[RowToolCall] | None = None
    tool_call_id: str | None = None
    weight: Literal[0, 1] = 1


class RowFunction(msgspec.Struct, frozen=True):
    """`parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class RowTool(msgspec.Struct, frozen=True):
    """A function that the assistant may call."""

    function: RowFunction
    type: Literal["function"] = "function"


class ChatRow(msgspec.Struct, frozen=True):
    """One conversation."""

    messages: list[RowMessage]
    tools: list[RowTool] | None = None


def check_chat_row(row: object) -> ChatRow:
    """Return the row, typed; one that breaks a rule raises `RowProblem`."""
    if not isinstance(row, dict):
        raise RowProblem('must be a JSON object with "messages"')
    check_fields(row, _ROW_FIELDS, "the row")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowProblem('"messages" must be a list with at least one message')
    for number, message in enumerate(messages):
        check_message(message, f"messages[{number}]")
    _check_learnable(messages)
    return typed_chat(row)


def check_message(message: object, where: str) -> None:
    """Raise `RowProblem` where a message of a chat is not one; `where` names it in what is said."""
    if not isinstance(message, dict):
        raise RowProblem(f"{where} must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _FIELDS_OF_ROLE:
        raise RowProblem(f"{where}.role must be one of {', '.join(_FIELDS_OF_ROLE)}, not {_quoted(role)}")
    check_fields(message, _FIELDS_OF_ROLE[role], f"{where} (role {role})")
    _check_content(message, where)
    if "weight" in message and (message["weight"] not in (0, 1) or isinstance(message["weight"], bool)):
        raise RowProblem(f"{where}.weight must be 0 or 1")
    for name in ("name", "tool_call_id"):
        if name in message and not isinstance(message[name], str):
            raise RowProblem(f"{where}.{name} must be text")


def _check_content(message: Json, where: str) -> None:
    content, calls = message.get("content"), message.get("tool_calls")
    if calls == []:
        raise RowProblem(f"{where}.tool_calls must be a list of at least one call")
    if content is None and calls is not None:
        return
    if not isinstance(content, str):
        raise RowProblem(f"{where}.content must be text, not {_quoted(content)}")
    if not content.strip() and calls is None and message["role"] in ("user", "assistant"):
        raise RowProblem(f"{where}.content is empty")


def _check_learnable(messages: Sequence[Json]) -> None:
    answers = [message for message in messages if message["role"] == "assistant"]
    if messages[0]["role"] == "assistant" and messages[0].get("weight", 1) != 0:
        raise RowProblem("the first message must not be from the assistant: nothing asks for what it would learn")
    if not answers:
        raise RowProblem("there is no assistant message to learn from")
    if all(message.get("weight", 1) == 0 for message in answers):
        raise RowProblem("every assistant message has weight 0, so there is nothing to learn from")
    if messages[-1]["role"] != "assistant":
        raise RowProblem(f"the last message must be from the assistant, not {_quoted(messages[-1]['role'])}")


def typed_chat(row: Json) -> ChatRow:
    """Return messages and tools, typed; what training could not read, of calls above all, raises `RowProblem`."""
    try:
        typed = msgspec.convert(row, ChatRow)
    except msgspec.ValidationError as error:
        what, _, place = str(error).removesuffix("`").partition(" - at `$.")
        raise RowProblem(f"{place}: {what[:_PROBLEM_CHARACTERS]}") from None
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        raise RowProblem('"parallel_tool_calls" must be true or false')
    return typed


def check_fields(found: Json, known: frozenset[str], where: str) -> None:
    """Raise `RowProblem` where an object has a field that nobody would read."""
    unknown = sorted(set(found) - known)
    if unknown:
        raise RowProblem(f"{where} has the unknown field {_quoted(unknown[0])}")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}..."
