"""Supervised fine-tuning on chats: `{"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}` a row."""

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel

from tokenyard.core.chat_rows import ChatRow
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters
from tokenyard.finetune.methods.method import Json, RowProblem, RowSize

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


class SupervisedSettings(BaseModel, extra="forbid"):
    """How supervised fine-tuning is set."""

    hyperparameters: RequestedHyperparameters | None = None


class Supervised:
    """Learns the assistant messages of weight 1, which is the default."""

    name = "supervised"
    row_field = "messages"
    conversations = 1

    def check_row(self, row: object) -> RowSize:
        if not isinstance(row, dict):
            raise RowProblem('must be a JSON object with "messages"')
        _check_fields(row, _ROW_FIELDS, "the row")
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RowProblem('"messages" must be a list with at least one message')
        for number, message in enumerate(messages):
            _check_message(message, f"messages[{number}]")
        _check_learnable(messages)
        _check_types(row)
        return RowSize(len(messages), text_token_bound(row))


def text_token_bound(row: Json) -> int:
    """Bound a row's tokens from above, without the chat template: no tokenizer makes more tokens than UTF-8 bytes.

    Everything but the bare text (tool calls, tools) counts as the JSON it renders to at most.
    """
    messages: Any = row["messages"]
    texts = [
        value if isinstance(value, str) else _as_in_a_template(value)
        for message in messages
        for name, value in message.items()
        if name not in ("role", "weight") and value is not None
    ]
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    # Text here, but an object for the template.
    texts += [_as_in_a_template(msgspec.json.decode(call["function"]["arguments"] or "{}")) for call in calls]
    if row.get("tools"):
        texts.append(_as_in_a_template(row["tools"]))
    return sum(len(text.encode()) for text in texts)


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict):
        raise RowProblem(f"{where} must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _FIELDS_OF_ROLE:
        raise RowProblem(f"{where}.role must be one of {', '.join(_FIELDS_OF_ROLE)}, not {_quoted(role)}")
    _check_fields(message, _FIELDS_OF_ROLE[role], f"{where} (role {role})")
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
    if not answers:
        raise RowProblem("there is no assistant message to learn from")
    if all(message.get("weight", 1) == 0 for message in answers):
        raise RowProblem("every assistant message has weight 0, so there is nothing to learn from")
    if messages[-1]["role"] != "assistant":
        raise RowProblem(f"the last message must be from the assistant, not {_quoted(messages[-1]['role'])}")


def _check_types(row: Json) -> None:
    """Refuse what training could not read, tools and their calls above all."""
    try:
        msgspec.convert(row, ChatRow)
    except msgspec.ValidationError as error:
        what, _, place = str(error).removesuffix("`").partition(" - at `$.")
        raise RowProblem(f"{place}: {what[:_PROBLEM_CHARACTERS]}") from None
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        raise RowProblem('"parallel_tool_calls" must be true or false')


def _check_fields(found: Json, known: frozenset[str], where: str) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        raise RowProblem(f"{where} has the unknown field {_quoted(unknown[0])}")


def _as_in_a_template(value: object) -> str:
    """Return JSON at the greatest length at which templates print it, which is with an indent of four."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4).decode().replace("\n", "\n    ")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}..."
