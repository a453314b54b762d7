"""A row of preferences: one conversation and two ways to go on with it.

It is `{"input": {"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}, "preferred_output": [...],
"non_preferred_output": [...]}`; each output is one message of the assistant.
"""

import re

import msgspec

from tokenyard.core.chat_rows import ChatRow, Json, RowMessage, RowProblem, RowTool, check_chat_row, check_fields

OUTPUTS = ("preferred_output", "non_preferred_output")
_FIELDS = frozenset(("input", *OUTPUTS))
_INPUT_FIELDS = frozenset(("messages", "tools", "parallel_tool_calls"))
_MESSAGE = re.compile(r"^messages\[(\d+)\]")


class PreferenceInput(msgspec.Struct, frozen=True):
    """What both answers follow."""

    messages: list[RowMessage]
    tools: list[RowTool] | None = None


class PreferenceRow(msgspec.Struct, frozen=True):
    """Each output is one message of the assistant."""

    input: PreferenceInput
    preferred_output: list[RowMessage]
    non_preferred_output: list[RowMessage]

    def chats(self) -> tuple[ChatRow, ChatRow]:
        """Return it as two conversations of which only the answers are learnt: the preferred one first."""
        before = [msgspec.structs.replace(message, weight=0) for message in self.input.messages]
        preferred, other = (
            ChatRow([*before, *answer], self.input.tools)
            for answer in (self.preferred_output, self.non_preferred_output)
        )
        return preferred, other


def check_preference_row(row: object) -> PreferenceRow:
    """Return the row, typed; one that breaks a rule raises `RowProblem`."""
    if not isinstance(row, dict):
        raise RowProblem('must be a JSON object with "input"')
    check_fields(row, _FIELDS, "the row")
    before = row.get("input")
    if not isinstance(before, dict):
        raise RowProblem('"input" must be an object with "messages"')
    check_fields(before, _INPUT_FIELDS, "input")
    messages = _input_messages(before)
    preferred, other = (_answer(row, name) for name in OUTPUTS)
    _check_chat(before, messages, preferred, OUTPUTS[0])
    _check_chat(before, messages, other, OUTPUTS[1])
    if preferred == other:
        raise RowProblem("both outputs are the same, so there is nothing to prefer")
    return msgspec.convert(row, PreferenceRow)


def _input_messages(before: Json) -> list[object]:
    messages = before.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowProblem('"input.messages" must be a list with at least one message')
    for number, message in enumerate(messages):
        if isinstance(message, dict) and "weight" in message:
            raise RowProblem(f"input.messages[{number}] must have no weight: only the outputs are learnt")
    if isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        raise RowProblem("the last message of the input must not be from the assistant: the outputs follow it")
    return messages


def _answer(row: Json, name: str) -> Json:
    outputs = row.get(name)
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise RowProblem(f'"{name}" must be a list of one message')
    answer = outputs[0]
    if not isinstance(answer, dict) or answer.get("role") != "assistant":
        raise RowProblem(f"{name}[0] must be a message of the assistant")
    if "weight" in answer:
        raise RowProblem(f"{name}[0] must have no weight: it is always learnt")
    return answer


def _check_chat(before: Json, messages: list[object], answer: Json, output: str) -> None:
    """Check the chat that ends with this answer, by the rules of chats."""

    def place(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"input.messages[{number}]" if number < len(messages) else f"{output}[0]"

    try:
        check_chat_row({**before, "messages": [*map(_not_learnt, messages), answer]})
    except RowProblem as problem:
        text = _MESSAGE.sub(place, str(problem))
        raise RowProblem(f"input.{text}" if text.startswith("tools") else text) from None


def _not_learnt(message: object) -> object:
    is_answer = isinstance(message, dict) and message.get("role") == "assistant"
    return {**message, "weight": 0} if isinstance(message, dict) and is_answer else message
