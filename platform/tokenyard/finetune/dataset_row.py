"""The rules for one row of a training file: `{"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}`."""

from typing import Any

_ROW_FIELDS = frozenset(("messages", "tools", "parallel_tool_calls"))
_ROLES = ("system", "developer", "user", "assistant", "tool")
_FIELDS_OF_ROLE = {
    "system": frozenset(("role", "content", "name")),
    "developer": frozenset(("role", "content", "name")),
    "user": frozenset(("role", "content", "name")),
    "assistant": frozenset(("role", "content", "name", "weight", "tool_calls")),
    "tool": frozenset(("role", "content", "name", "tool_call_id")),
}
_SHOWN_CHARACTERS = 40


class RowProblem(ValueError):
    """What is wrong with the row, as a sentence without its line number."""


def check_row(row: Any) -> dict[str, Any]:
    """Return the row if a model can be trained on it.

    Raises:
        RowProblem: it breaks a rule.
    """
    if not isinstance(row, dict):
        raise RowProblem('must be a JSON object with "messages"')
    _only_known(row, _ROW_FIELDS, "the row")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowProblem('"messages" must be a list with at least one message')
    for number, message in enumerate(messages):
        _check_message(message, f"messages[{number}]")
    _check_assistant(messages)
    _check_tools(row)
    return row


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise RowProblem(f"{where} must be an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise RowProblem(f"{where}.role must be one of {', '.join(_ROLES)}, not {_shown(role)}")
    _only_known(message, _FIELDS_OF_ROLE[role], f"{where} (role {role})")
    _check_content(message, where)
    if "weight" in message and (message["weight"] not in (0, 1) or isinstance(message["weight"], bool)):
        raise RowProblem(f"{where}.weight must be 0 or 1")
    for name in ("name", "tool_call_id"):
        if name in message and not isinstance(message[name], str):
            raise RowProblem(f"{where}.{name} must be text")


def _check_content(message: dict[str, Any], where: str) -> None:
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list) or not calls or not all(isinstance(call, dict) for call in calls):
            raise RowProblem(f"{where}.tool_calls must be a list of at least one object")
        if content is None:
            return
    if not isinstance(content, str):
        raise RowProblem(f"{where}.content must be text, not {_shown(content)}")
    if not content.strip() and message["role"] in ("user", "assistant"):
        raise RowProblem(f"{where}.content is empty")


def _check_assistant(messages: list[dict[str, Any]]) -> None:
    taught = [message for message in messages if message["role"] == "assistant" and message.get("weight", 1) == 1]
    if not any(message["role"] == "assistant" for message in messages):
        raise RowProblem("there is no assistant message to learn from")
    if not taught:
        raise RowProblem("every assistant message has weight 0, so there is nothing to learn from")
    if messages[-1]["role"] != "assistant":
        raise RowProblem(f"the last message must be from the assistant, not {_shown(messages[-1]['role'])}")


def _check_tools(row: dict[str, Any]) -> None:
    tools = row.get("tools")
    if tools is not None and (not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools)):
        raise RowProblem('"tools" must be a list of objects')
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        raise RowProblem('"parallel_tool_calls" must be true or false')


def _only_known(found: dict[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        raise RowProblem(f"{where} has the unknown field {_shown(unknown[0])}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
