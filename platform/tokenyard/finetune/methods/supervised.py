"""Supervised fine-tuning on chats: `{"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}` a row."""

from typing import Any

import msgspec
from pydantic import BaseModel

from tokenyard.core.chat_rows import check_chat_row
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters
from tokenyard.finetune.methods.method import Json, RowSize


class SupervisedSettings(BaseModel, extra="forbid"):
    """How supervised fine-tuning is set."""

    hyperparameters: RequestedHyperparameters | None = None


class Supervised:
    """Learns the assistant messages of weight 1, which is the default."""

    name = "supervised"
    conversations = 1

    def takes(self, row: Json) -> bool:
        return "messages" in row

    def check_row(self, row: object) -> RowSize:
        messages = check_chat_row(row).messages
        assert isinstance(row, dict), "the rules say so"
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


def _as_in_a_template(value: object) -> str:
    """Return JSON at the greatest length at which templates print it, which is with an indent of four."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4).decode().replace("\n", "\n    ")
