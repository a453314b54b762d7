"""Direct preference optimization on pairs of answers, one pair a row.

A row is `{"input": {"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}, "preferred_output": [...],
"non_preferred_output": [...]}`; each output is one message of the assistant.
"""

import re
from typing import Annotated

import msgspec
from pydantic import BaseModel

from tokenyard.core.training import Hyperparameters
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters, number_up_to
from tokenyard.finetune.methods.method import Json, RowProblem, RowSize
from tokenyard.finetune.methods.supervised import Supervised

MAX_BETA = 2
AUTO_BETA = 0.1
_OUTPUTS = ("preferred_output", "non_preferred_output")
_FIELDS = ("input", *_OUTPUTS)
_INPUT_FIELDS = ("messages", "tools", "parallel_tool_calls")
_MESSAGE = re.compile(r"^messages\[(\d+)\]")
_CHAT = Supervised()


class DpoHyperparameters(RequestedHyperparameters, extra="forbid"):
    """The greater `beta` is, the nearer the model stays to what it was."""

    beta: Annotated[float | str, number_up_to(MAX_BETA)] = "auto"

    def resolved(self, rows: int) -> Hyperparameters:
        beta = AUTO_BETA if self.beta == "auto" else float(self.beta)
        return msgspec.structs.replace(super().resolved(rows), beta=beta)


class DpoSettings(BaseModel, extra="forbid"):
    """How direct preference optimization is set."""

    hyperparameters: DpoHyperparameters | None = None


class Dpo:
    """Learns to prefer one answer to another.

    A row counts as the two conversations that it stands for, so the tokens of what both answers follow count twice.
    """

    name = "dpo"
    row_field = "input"
    conversations = 2

    def check_row(self, row: object) -> RowSize:
        if not isinstance(row, dict):
            raise RowProblem('must be a JSON object with "input"')
        _check_fields(row, _FIELDS, "the row")
        before = row.get("input")
        if not isinstance(before, dict):
            raise RowProblem('"input" must be an object with "messages"')
        _check_fields(before, _INPUT_FIELDS, "input")
        messages = _input_messages(before)
        preferred, other = (_answer(row, name) for name in _OUTPUTS)
        sizes = [
            _size(before, messages, preferred, _OUTPUTS[0]),
            _size(before, messages, other, _OUTPUTS[1]),
        ]
        if preferred == other:
            raise RowProblem("both outputs are the same, so there is nothing to prefer")
        return RowSize(*(sum(part) for part in zip(*sizes, strict=True)))


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


def _size(before: Json, messages: list[object], answer: Json, output: str) -> RowSize:
    """Check and measure the chat that ends with this answer, by the rules of chats."""

    def place(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"input.messages[{number}]" if number < len(messages) else f"{output}[0]"

    try:
        return _CHAT.check_row({**before, "messages": [*messages, answer]})
    except RowProblem as problem:
        text = _MESSAGE.sub(place, str(problem))
        raise RowProblem(f"input.{text}" if text.startswith("tools") else text) from None


def _check_fields(found: Json, known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise RowProblem(f"{where} has the unknown field {unknown[0][:40]!r}")
