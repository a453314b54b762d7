"""What a Responses request gives a model to read, and the chat completion that this is."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.body import NO_NUL, PaidBody, Prompt
from tokenyard.gateway.endpoints.chat import MAX_TOOLS, ChatBody, read_as
from tokenyard.gateway.endpoints.chat_messages import (
    AllowedFunction,
    AllowedFunctions,
    AllowedTools,
    ChatMessage,
    ChosenFunction,
    FunctionDefinition,
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaDefinition,
    JsonSchemaFormat,
    ResponseFormat,
    ToolChoice,
)
from tokenyard.gateway.endpoints.invalid_body import Json, blamed_on, bounded, missing
from tokenyard.gateway.endpoints.responses.items import (
    INPUT_SCHEMA,
    InputItem,
    Item,
    ItemReference,
    as_messages,
    read_input,
    read_items,
    response_of_item,
)
from tokenyard.gateway.endpoints.responses.output import (
    ResponseAllowedTools,
    ResponseJsonSchemaFormat,
    ResponseReasoning,
    ResponseText,
    ResponseTool,
    ResponseToolChoice,
)
from tokenyard.gateway.endpoints.responses.truncation import oldest_of

_ResponseId = Annotated[str, Meta(max_length=64, pattern=NO_NUL)]
_INPUT = "input"


class ResponseInputBody(PaidBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A conversation: `input`, behind that of `previous_response_id`. Instructions are not inherited.

    With `truncation` at `auto`, the oldest of a conversation that is too long is left out: never an instruction, nor
    what was said last, and no call without its output.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "conversation": "conversations are not kept here; use 'previous_response_id'.",
    }

    conversation: None = None
    input: Annotated[Any, Meta(extra_json_schema=INPUT_SCHEMA)] = None
    instructions: str | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: _ResponseId | None = None
    reasoning: ResponseReasoning | None = None
    text: ResponseText | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | ResponseAllowedTools | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)] | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def continues(self) -> str | None:
        return self.previous_response_id

    @property
    def referred_items(self) -> Mapping[str, str]:
        return {item.id: response_of_item(item.id) for item in self._given if isinstance(item, ItemReference)}

    def recall(self, conversation: Sequence[Json], items: Mapping[str, Json]) -> None:
        self._history.extend(read_items(conversation))
        for place, item in enumerate(self._given):
            if isinstance(item, ItemReference):
                [self._given[place]] = read_items([items[item.id]])

    def check(self) -> None:
        if self.input is None and self.previous_response_id is None:
            raise missing(_INPUT)
        if self.text is not None and isinstance(self.text.format, ResponseJsonSchemaFormat):
            bounded("text.format", self.text.format.schema)
        bounded("tools", [tool.parameters for tool in self.tools or ()])
        if not self.referred_items and not self.previous_response_id:
            as_messages(self.instructions, self.items)

    def check_model(self, model: BaseModel) -> None:
        with blamed_on(_INPUT):
            # Log probabilities are held until the end, also those of a stream.
            msgspec.structs.replace(self.chat, stream=None).check_model(model)

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return self.chat.prompts(model)

    def parts(self, model: BaseModel) -> list[Prompt]:
        if self.truncation != "auto":
            return []
        oldest, chat = self._oldest, self.chat
        stays = msgspec.structs.replace(chat, messages=_without(oldest, chat.messages))
        return [
            *(read_as([chat.messages[place] for place in together], model) for together in oldest),
            *stays.prompts(model),
        ]

    def leave_out(self, number: int) -> None:
        chat = self.chat
        self.chat = msgspec.structs.replace(chat, messages=_without(self._oldest[:number], chat.messages))

    @property
    def _oldest(self) -> list[list[int]]:
        return oldest_of(self.chat.messages)

    @property
    def items(self) -> list[Item]:
        """The items that this request gave; references are there once they are recalled."""
        return [item for item in self._given if not isinstance(item, ItemReference)]

    @cached_property
    def chat(self) -> ChatBody:
        """The same as a body of chat completions."""
        chat = self.translated()
        with blamed_on(_INPUT):
            chat.check()
        return chat

    def translated(self) -> ChatBody:
        return ChatBody(
            model=self.model,
            messages=as_messages(self.instructions, [*self._history, *self.items]),
            parallel_tool_calls=self.parallel_tool_calls if self.tools else None,
            response_format=None if self.text is None else _format(self.text),
            tools=[_function(tool) for tool in self.tools] if self.tools else None,
            tool_choice=_choice(self),
        )

    @cached_property
    def _given(self) -> list[InputItem]:
        return [] if self.input is None else read_input(self.input)

    @cached_property
    def _history(self) -> list[Item]:
        return []


class InputTokensBody(ResponseInputBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation whose tokens to count."""

    refused: ClassVar[Mapping[str, str]] = {
        **ResponseInputBody.refused,
        "personality": "models here have no styles of their own to choose from.",
    }

    personality: None = None
    stream: None = None


def _without(left_out: Iterable[Sequence[int]], messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    places = set(chain.from_iterable(left_out))
    return [message for place, message in enumerate(messages) if place not in places]


def _format(text: ResponseText) -> ResponseFormat | None:
    match text.format:
        case ResponseJsonSchemaFormat(name=name, schema=schema, description=description, strict=strict):
            return JsonSchemaFormat(JsonSchemaDefinition(name, schema, description, strict))
        case JsonObjectFormat():
            return text.format
    return None


def _function(tool: ResponseTool) -> FunctionTool:
    return FunctionTool("function", FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict))


def _choice(body: ResponseInputBody) -> Literal["none", "auto", "required"] | ToolChoice | AllowedTools | None:
    match body.tool_choice:
        case ResponseToolChoice(name=name):
            return ToolChoice(ChosenFunction(name))
        case ResponseAllowedTools(mode=mode, tools=tools):
            return AllowedTools(
                AllowedFunctions(mode, [AllowedFunction("function", ChosenFunction(tool.name)) for tool in tools])
            )
        case "auto" if not body.tools:
            return None  # what is the default anyway needs no tools
        case choice:
            return choice
