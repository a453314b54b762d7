"""Translates Anthropic's messages to those of chat completions, which know texts and calls, but no blocks."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from tokenyard.gateway.endpoints.anthropic.blocks import Block, InputMessage, TextBlock, ToolResultBlock, ToolUseBlock
from tokenyard.gateway.endpoints.chat_messages import CalledFunction, ChatMessage, ToolCall
from tokenyard.gateway.endpoints.invalid_body import invalid

_SYSTEM = "system"
_BELONGS_TO = {ToolUseBlock: "assistant", ToolResultBlock: "user"}


def chat_messages(system: str | Sequence[TextBlock] | None, messages: Sequence[InputMessage]) -> list[ChatMessage]:
    """Return the conversation; a block that its message's role cannot say raises `InvalidRequest`."""
    chat: list[ChatMessage] = []
    for role, said in groupby(_said(system, messages), key=lambda one: one[0]):
        blocks = [block for _, block in said]
        chat.extend([_assistant(blocks)] if role == "assistant" else _others(role, blocks))
    return chat


def _said(system: str | Sequence[TextBlock] | None, messages: Sequence[InputMessage]) -> Iterator[tuple[str, Block]]:
    """Yield every block with who says it."""
    for block in _blocks(system or ()):
        yield _SYSTEM, block
    for place, message in enumerate(messages):
        for at, block in enumerate(_blocks(message.content)):
            if message.role != _BELONGS_TO.get(type(block), message.role):
                kind = block.__struct_config__.tag
                raise invalid(f"messages[{place}].content[{at}]", f"'{kind}' is not for the role '{message.role}'.")
            yield message.role, block


def _blocks(content: str | Iterable[Block]) -> Iterable[Block]:
    return [TextBlock(content)] if isinstance(content, str) else content


def _assistant(blocks: Sequence[Block]) -> ChatMessage:
    texts = [block for block in blocks if isinstance(block, TextBlock)]
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    return ChatMessage("assistant", _text(texts) if texts else None, tool_calls=calls or None)


def _call(block: ToolUseBlock) -> ToolCall:
    return ToolCall(block.id, CalledFunction(block.name, msgspec.json.encode(block.input).decode()))


def _others(role: str, blocks: Iterable[Block]) -> Iterator[ChatMessage]:
    for is_text, said in groupby(blocks, key=lambda block: isinstance(block, TextBlock)):
        if is_text:
            yield ChatMessage("system" if role == _SYSTEM else "user", _text(said))
        else:
            yield from (_result(block) for block in said if isinstance(block, ToolResultBlock))


def _result(block: ToolResultBlock) -> ChatMessage:
    told = _text(_blocks(block.content or ()))
    return ChatMessage("tool", f"Error: {told}" if block.is_error else told, tool_call_id=block.tool_use_id)


def _text(blocks: Iterable[Block]) -> str:
    """Return texts as one, as model servers join the parts of a message for templates that know none."""
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
