"""A row of a training file, typed: upload checks it, training renders it.

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


class PreferenceInput(msgspec.Struct, frozen=True):
    """What both answers follow."""

    messages: list[RowMessage]
    tools: list[RowTool] | None = None


class PreferenceRow(msgspec.Struct, frozen=True):
    """One conversation and two ways to go on with it, each one message of the assistant."""

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


class CompletionRow(msgspec.Struct, frozen=True):
    """A text and how it goes on, without a chat template; only what goes on is learnt."""

    prompt: str
    completion: str


class TextRow(msgspec.Struct, frozen=True):
    """Plain text, all of which is learnt."""

    text: str


TrainingRow = ChatRow | CompletionRow | TextRow
"""What supervised fine-tuning learns from."""
