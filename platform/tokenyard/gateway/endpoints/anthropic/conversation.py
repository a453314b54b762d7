"""Translates Anthropic's messages to those of chat completions, which know texts, images and calls, but no blocks."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from tokenyard.gateway.endpoints.anthropic.blocks import (
    Block,
    ImageBlock,
    InputMessage,
    Text,
    TextAlone,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from tokenyard.gateway.endpoints.chat_messages import (
    CalledFunction,
    ChatMessage,
    ContentPart,
    ImagePart,
    ImageUrl,
    TextPart,
    ToolCall,
)
from tokenyard.gateway.endpoints.invalid_body import invalid

_Said = Block | TextAlone
_SYSTEM = "system"
_BELONGS_TO = {ToolUseBlock: "assistant", ToolResultBlock: "user", ImageBlock: "user"}


def chat_messages(system: str | Sequence[TextAlone] | None, messages: Sequence[InputMessage]) -> list[ChatMessage]:
    """Return the conversation; a block that its message's role cannot say raises `InvalidRequest`."""
    chat: list[ChatMessage] = []
    for role, said in groupby(_said(system, messages), key=lambda one: one[0]):
        blocks = [block for _, block in said]
        chat.extend([_assistant(blocks)] if role == "assistant" else _others(role, blocks))
    return chat


def _said(system: str | Sequence[TextAlone] | None, messages: Sequence[InputMessage]) -> Iterator[tuple[str, _Said]]:
    """Yield every block with who says it."""
    for block in _blocks(system or ()):
        yield _SYSTEM, block
    for place, message in enumerate(messages):
        for at, block in enumerate(_blocks(message.content)):
            if message.role != _BELONGS_TO.get(type(block), message.role):
                kind = block.__struct_config__.tag
                raise invalid(f"messages[{place}].content[{at}]", f"'{kind}' is not for the role '{message.role}'.")
            yield message.role, block


def _blocks(content: str | Iterable[_Said]) -> Iterable[_Said]:
    return [TextBlock(content)] if isinstance(content, str) else content


def _assistant(blocks: Sequence[_Said]) -> ChatMessage:
    texts = [block for block in blocks if isinstance(block, Text)]
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    return ChatMessage("assistant", _text(texts) if texts else None, tool_calls=calls or None)


def _call(block: ToolUseBlock) -> ToolCall:
    return ToolCall(block.id, CalledFunction(block.name, msgspec.json.encode(block.input).decode()))


def _others(role: str, blocks: Iterable[_Said]) -> Iterator[ChatMessage]:
    for is_result, said in groupby(blocks, key=lambda block: isinstance(block, ToolResultBlock)):
        if is_result:
            yield from (_result(block) for block in said if isinstance(block, ToolResultBlock))
        else:
            yield ChatMessage("system" if role == _SYSTEM else "user", _content(list(said)))


def _content(said: Sequence[_Said]) -> str | list[ContentPart]:
    if not any(isinstance(block, ImageBlock) for block in said):
        return _text(said)
    return [
        ImagePart(ImageUrl(f"data:{block.source.media_type};base64,{block.source.data}"))
        if isinstance(block, ImageBlock)
        else TextPart(_text([block]))
        for block in said
    ]


def _result(block: ToolResultBlock) -> ChatMessage:
    told = _text(_blocks(block.content or ()))
    return ChatMessage("tool", f"Error: {told}" if block.is_error else told, tool_call_id=block.tool_use_id)


def _text(blocks: Iterable[_Said]) -> str:
    """Return texts as one, as model servers join the parts of a message for templates that know none."""
    return "\n".join(block.text for block in blocks if isinstance(block, Text))
