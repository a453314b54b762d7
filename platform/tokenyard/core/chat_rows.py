"""A row of a training file of chats, typed: upload checks it, training renders it.

Both drop the same unknown fields of tools and calls that serving drops.
"""

from typing import Any, Literal

import msgspec


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
