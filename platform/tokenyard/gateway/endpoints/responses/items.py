"""The items of a conversation: as clients send them, as they are kept and listed, and as chat messages."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.body import Ignored
from tokenyard.gateway.endpoints.chat_messages import (
    CalledFunction,
    ChatMessage,
    ImagePart,
    ImageUrl,
    RefusalPart,
    TextPart,
    ToolCall,
)
from tokenyard.gateway.endpoints.invalid_body import Json, invalid, invalid_body, missing

MAX_ITEMS = 4096
MAX_PARTS = 4096
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})[io][0-9]+")

ItemId = Annotated[str, Meta(max_length=64)]
Status = Literal["in_progress", "completed", "incomplete"]


class InputTextPart(msgspec.Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    """A text for the model."""

    text: str
    prompt_cache_breakpoint: Ignored = None


class OutputTextPart(msgspec.Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True):
    """A text that a model said earlier."""

    text: str
    annotations: Ignored = None
    logprobs: Ignored = None


class InputImagePart(msgspec.Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True):
    """An image for models that take some, itself and not its address, in what a user says: as a chat has it."""

    image_url: str
    detail: Literal["auto"] | None = None
    file_id: None = None
    prompt_cache_breakpoint: Ignored = None


MessagePart = InputTextPart | OutputTextPart | RefusalPart | InputImagePart
_Parts = Annotated[list[MessagePart], Meta(max_length=MAX_PARTS)]
Role = Literal["user", "assistant", "system", "developer"]


class MessageItem(msgspec.Struct, tag_field="type", tag="message", forbid_unknown_fields=True):
    """What somebody said; `type` may be left out."""

    role: Role
    content: str | _Parts
    id: ItemId | None = None
    status: Status | None = None
    phase: Ignored = None


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call", forbid_unknown_fields=True):
    """A call that the model made; `arguments` are JSON as it wrote it."""

    call_id: ItemId
    name: str
    arguments: str
    id: ItemId | None = None
    status: Status | None = None
    caller: None = None
    namespace: None = None


class ReturnedText(msgspec.Struct, forbid_unknown_fields=True):
    """A text that a function returned."""

    # A tag would be no more than a hint where there are no others.
    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: Ignored = None


class FunctionCallOutputItem(msgspec.Struct, tag_field="type", tag="function_call_output", forbid_unknown_fields=True):
    """What the called function returned."""

    call_id: ItemId
    output: str | Annotated[list[ReturnedText], Meta(max_length=MAX_PARTS)]
    id: ItemId | None = None
    status: Status | None = None
    caller: None = None
    name: None = None
    namespace: None = None


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning", forbid_unknown_fields=True):
    """Reasoning of an earlier turn. It is not read: models here are not shown what they thought before."""

    id: ItemId | None = None
    summary: Ignored = None
    content: Ignored = None
    encrypted_content: Ignored = None
    status: Status | None = None


class ItemReference(msgspec.Struct, tag_field="type", tag="item_reference", forbid_unknown_fields=True):
    """An item of a response that is stored; `type` may be left out."""

    id: ItemId


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem
InputItem = Item | ItemReference


class _Items(msgspec.Struct):
    input: Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_ITEMS)]


_, _COMPONENTS = msgspec.json.schema_components([_Items], ref_template="#/components/schemas/{name}")
INPUT_SCHEMA: Json = {"anyOf": [{"type": "string"}, _COMPONENTS["_Items"]["properties"]["input"]]}
"""What `input` may be, for the description."""
UNTYPED: tuple[type[msgspec.Struct], ...] = (MessageItem, ItemReference)
"""Those whose `type` may be left out."""
INPUT_TYPES: tuple[type[msgspec.Struct], ...] = (
    *(MessageItem, FunctionCallItem, FunctionCallOutputItem, ReasoningItem, ItemReference),
    *(InputTextPart, OutputTextPart, RefusalPart, InputImagePart, ReturnedText),
)


def read_input(given: object) -> list[InputItem]:
    """Return the items of `input`, a text or a list; what is wrong with one raises `InvalidRequest`, naming it."""
    if isinstance(given, str):
        return [MessageItem("user", given)]
    if not isinstance(given, list):
        raise InvalidRequest("Invalid type for 'input': expected a string or an array.", param="input")
    try:
        return msgspec.convert({"input": [_with_type(item) for item in given]}, _Items).input
    except msgspec.ValidationError as error:
        raise invalid_body(error, {}) from error


def _with_type(item: object) -> object:
    if not isinstance(item, dict) or item.get("type") is not None:
        return item
    return {**item, "type": "message" if "role" in item else "item_reference"}


def read_items(kept: Sequence[Json]) -> list[Item]:
    """Return items as they were kept."""
    return [item for item in read_input(list(kept)) if not isinstance(item, ItemReference)] if kept else []


def item_id(prefix: str, response: str, side: Literal["i", "o"], place: int) -> str:
    """Return the id of an input or output item, which tells its response."""
    return f"{prefix}_{response.partition('_')[2]}{side}{place}"


def response_of_item(item: str) -> str:
    """Return the id of the response that made the item `item`; one that none of ours made raises `InvalidRequest`."""
    matched = _ITEM_ID.fullmatch(item)
    if matched is None:
        raise InvalidRequest(f"Item with id '{item}' not found.", param="input", code="item_not_found")
    return f"resp_{matched[1]}"


def as_kept(items: Iterable[Item], response: str) -> list[Json]:
    """Return input items as they are kept and listed. Those without an id get one of `response`."""
    return [_as_kept(item, response, place) for place, item in enumerate(items)]


def _as_kept(item: Item, response: str, place: int) -> Json:
    match item:
        case MessageItem():
            content = _listed_parts(item)
            return _resource("msg", item, response, place) | {"role": item.role, "content": content}
        case FunctionCallItem():
            called = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return _resource("fc", item, response, place) | called
        case FunctionCallOutputItem():
            output = item.output if isinstance(item.output, str) else [_input_text(part.text) for part in item.output]
            return _resource("fco", item, response, place) | {"call_id": item.call_id, "output": output}
        case ReasoningItem():
            return _resource("rs", item, response, place) | {"summary": []}


def _resource(prefix: str, item: Item, response: str, place: int) -> Json:
    tag = item.__struct_config__.tag
    own = item.id or item_id(prefix, response, "i", place)
    return {"id": own, "type": tag, "status": item.status or "completed"}


def _listed_parts(item: MessageItem) -> list[Json]:
    parts: Sequence[MessagePart] = item.content if isinstance(item.content, list) else [InputTextPart(item.content)]
    if item.role != "assistant":
        return [_input_image(part) if isinstance(part, InputImagePart) else _input_text(_text(part)) for part in parts]
    return [
        {"type": "refusal", "refusal": part.refusal}
        if isinstance(part, RefusalPart)
        else {"type": "output_text", "text": _text(part), "annotations": [], "logprobs": []}
        for part in parts
    ]


def _input_text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def _input_image(part: InputImagePart) -> Json:
    return {"type": "input_image", "detail": "auto", "image_url": part.image_url}


def _text(part: MessagePart | ReturnedText) -> str:
    match part:
        case RefusalPart():
            return part.refusal
        case InputImagePart():
            return ""
    return part.text


def as_messages(instructions: str | None, items: Iterable[Item]) -> list[ChatMessage]:
    """Return the conversation as chat messages: calls of one turn are one message, with what was said before them."""
    messages = [] if instructions is None else [ChatMessage("system", instructions)]
    messages.extend(_messages(items))
    if not messages:
        raise missing("input")
    if len(messages) > MAX_ITEMS:
        raise invalid("input", f"the conversation has more than {MAX_ITEMS} items.", "array_above_max_length")
    return messages


def _messages(items: Iterable[Item]) -> Iterator[ChatMessage]:
    turn: ChatMessage | None = None  # an assistant's, to which calls may still be added
    for item in items:
        if isinstance(item, ReasoningItem):
            continue
        if isinstance(item, FunctionCallItem):
            turn = turn or ChatMessage("assistant")
            call = ToolCall(item.call_id, CalledFunction(item.name, item.arguments))
            turn.tool_calls = [*(turn.tool_calls or ()), call]
            continue
        if turn is not None:
            yield turn
            turn = None
        if isinstance(item, FunctionCallOutputItem):
            yield ChatMessage("tool", _content(item.output), tool_call_id=item.call_id)
        elif item.role == "assistant":
            turn = ChatMessage("assistant", _content(item.content))
        else:
            yield ChatMessage(item.role, _content(item.content))
    if turn is not None:
        yield turn


def _content(content: str | Sequence[MessagePart | ReturnedText]) -> Any:
    if isinstance(content, str):
        return content
    # One text is the same to a model whether it came as a text or as the only part, and so is none.
    if not content or (len(content) == 1 and not isinstance(content[0], InputImagePart)):
        return "".join(_text(part) for part in content)
    return [_chat_part(part) for part in content]


def _chat_part(part: MessagePart | ReturnedText) -> TextPart | ImagePart:
    return ImagePart(ImageUrl(part.image_url)) if isinstance(part, InputImagePart) else TextPart(_text(part))
