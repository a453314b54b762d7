"""A row of reinforcement fine-tuning: a conversation that is to be answered, and whatever graders need besides.

It is `{"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool, ...}`. No answer stands in it: the model makes
its own, and a grader, to which the whole row is `item`, says what they are worth.
"""

import msgspec

from tokenyard.core.chat_rows import ChatRow, Json, RowMessage, RowProblem, RowTool, check_message, typed_chat
from tokenyard.core.graders.shapes import Grader, item_paths
from tokenyard.core.graders.templates import UnknownReference, value_at

CHAT_FIELDS = ("messages", "tools", "parallel_tool_calls")
_LAST_ROLES = ("user", "developer", "system")


class ReinforcementRow(msgspec.Struct, frozen=True):
    """`item` is the row as it stands in the file."""

    messages: list[RowMessage]
    tools: list[RowTool] | None
    item: Json

    def as_chat(self) -> ChatRow:
        """Return it as the conversation that it will be, of whose answer nothing is known yet."""
        before = [msgspec.structs.replace(message, weight=0) for message in self.messages]
        return ChatRow([*before, RowMessage("assistant", "", weight=0)], self.tools)


def asks_for_an_answer(row: Json) -> bool:
    """Tell whether a row's messages end with one that is to be answered."""
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") in _LAST_ROLES


def check_reinforcement_row(row: object, grader: Grader | None = None) -> ReinforcementRow:
    """Return the row, typed; one that breaks a rule, or lacks what `grader` refers to, raises `RowProblem`."""
    if not isinstance(row, dict):
        raise RowProblem('must be a JSON object with "messages"')
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowProblem('"messages" must be a list with at least one message')
    for number, message in enumerate(messages):
        check_message(message, f"messages[{number}]")
        if "weight" in message:
            raise RowProblem(f"messages[{number}] must have no weight: only the model's own answers are learnt")
    if not asks_for_an_answer(row):
        raise RowProblem(f"the last message must be from one of {', '.join(_LAST_ROLES)}: the model answers it")
    chat = typed_chat({name: row[name] for name in CHAT_FIELDS if name in row})
    for path in sorted(item_paths(grader)) if grader is not None else ():
        try:
            value_at(row, path)
        except UnknownReference:
            raise RowProblem(f"the grader refers to item.{'.'.join(path)}, which the row does not have") from None
    return ReinforcementRow(chat.messages, chat.tools, row)
