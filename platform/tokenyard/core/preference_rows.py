"""A row of a training file of preferences, typed: upload checks it, training renders it."""

import msgspec

from tokenyard.core.chat_rows import ChatRow, RowMessage, RowTool


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
