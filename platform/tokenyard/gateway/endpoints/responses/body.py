"""The body of `POST /v1/responses`: what of it is a chat completion, and what is for the gateway."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import (
    MAX_TOKENS,
    NO_NUL,
    AnswerHead,
    EndUser,
    Metadata,
    PaidBody,
    Prompt,
    RepetitionPenalty,
    Share,
    Temperature,
    TopK,
)
from tokenyard.gateway.endpoints.chat import MAX_TOOLS, ChatBody
from tokenyard.gateway.endpoints.chat_messages import (
    FunctionDefinition,
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaDefinition,
    JsonSchemaFormat,
    ResponseFormat,
    TextFormat,
    ToolChoice,
)
from tokenyard.gateway.endpoints.invalid_body import Json, bounded, missing, unsupported
from tokenyard.gateway.endpoints.responses.answer import ResponseAnswer
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
    Response,
    ResponseJsonSchemaFormat,
    ResponseReasoning,
    ResponseText,
    ResponseTool,
    ResponseToolChoice,
    ReturnedTool,
)

LOGPROBS = "message.output_text.logprobs"
MIN_OUTPUT_TOKENS = 16

_ResponseId = Annotated[str, Meta(max_length=64, pattern=NO_NUL)]


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Events are never padded, for which `include_obfuscation` would ask."""

    include_obfuscation: Literal[False] | None = None


class ResponseBody(PaidBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A conversation to answer: `input`, behind that of `previous_response_id`. Instructions are not inherited."""

    refused: ClassVar[Mapping[str, str]] = {
        "conversation": "conversations are not kept here; use 'previous_response_id'.",
        "context_management": "nothing is left out of a conversation here.",
        "prompt_cache_options": "what is cached, and for how long, cannot be chosen here.",
        "prompt": "prompt templates are not kept here.",
    }

    background: bool | None = None
    context_management: None = None
    conversation: None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Meta(max_length=8)] | None = None
    input: Annotated[Any, Meta(extra_json_schema=INPUT_SCHEMA)] = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=MIN_OUTPUT_TOKENS, le=MAX_TOKENS)] | None = None
    max_tool_calls: (
        Annotated[int, Meta(ge=1, le=MAX_TOOLS, description="Of built-in tools: there are none.")] | None
    ) = None
    metadata: Metadata | None = None
    moderation: None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: _ResponseId | None = None
    prompt: None = None
    prompt_cache_key: Annotated[str, Meta(max_length=256)] | None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    reasoning: ResponseReasoning | None = None
    safety_identifier: EndUser | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: Temperature | None = None
    text: ResponseText | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Share | None = None
    truncation: Literal["disabled"] | None = None
    user: EndUser | None = None
    # Not OpenAI's, as of chat.
    min_p: Share | None = None
    repetition_penalty: RepetitionPenalty | None = None
    top_k: TopK | None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_output_tokens

    @property
    def end_user(self) -> str:
        return self.safety_identifier or self.user or ""

    @property
    def stores(self) -> bool:
        return self.store is not False

    @property
    def in_background(self) -> bool:
        return bool(self.background)

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
            raise missing("input")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )
        if self.background:
            self._check_background()
        if self.top_logprobs and not self._tells_logprobs:
            raise unsupported("top_logprobs", f"it goes with '{LOGPROBS}' in 'include'.")
        if self.text is not None and isinstance(self.text.format, ResponseJsonSchemaFormat):
            bounded("text.format", self.text.format.schema)
        bounded("tools", [tool.parameters for tool in self.tools or ()])
        if not self.referred_items and not self.previous_response_id:
            as_messages(self.instructions, self.items)

    def _check_background(self) -> None:
        if not self.stores:
            raise InvalidRequest("'background' is only allowed when 'store' is enabled.", param="background")
        if self.stream:
            raise unsupported("stream", "what is made in the background is not streamed; retrieve it.")

    def check_model(self, model: BaseModel) -> None:
        # Log probabilities are held until the end, also those of a stream.
        msgspec.structs.replace(self._chat, stream=None).check_model(model)

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return self._chat.prompts(model)

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        return self._chat.sent(model, max_tokens)

    def answer(self, head: AnswerHead) -> Answer:
        return ResponseAnswer(self._response(head), self.items if self.stores else None)

    @property
    def items(self) -> list[Item]:
        """The items that this request gave; references are there once they are recalled."""
        return [item for item in self._given if not isinstance(item, ItemReference)]

    @cached_property
    def _given(self) -> list[InputItem]:
        return [] if self.input is None else read_input(self.input)

    @cached_property
    def _history(self) -> list[Item]:
        return []

    @property
    def _tells_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    @cached_property
    def _chat(self) -> ChatBody:
        chat = ChatBody(
            model=self.model,
            messages=as_messages(self.instructions, [*self._history, *self.items]),
            stream=self.stream,
            max_completion_tokens=self.max_output_tokens,
            parallel_tool_calls=self.parallel_tool_calls if self.tools else None,
            response_format=None if self.text is None else _format(self.text),
            temperature=self.temperature,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            top_k=self.top_k,
            logprobs=True if self._tells_logprobs else None,
            top_logprobs=self.top_logprobs if self._tells_logprobs else None,
            tools=[_function(tool) for tool in self.tools] if self.tools else None,
            tool_choice=_choice(self),
        )
        chat.check()
        return chat

    def _response(self, head: AnswerHead) -> Response:
        """Return the response as it begins."""
        return Response(
            id=f"resp_{head.id.removeprefix('req_')}",
            created_at=head.created_at,
            status="in_progress",
            background=self.in_background,
            model=head.model,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            max_tool_calls=self.max_tool_calls,
            metadata=self.metadata or {},
            parallel_tool_calls=self.parallel_tool_calls is not False,
            previous_response_id=self.previous_response_id,
            prompt_cache_key=self.prompt_cache_key,
            reasoning=self.reasoning,
            safety_identifier=self.safety_identifier,
            temperature=self.temperature,
            text=_told_text(self.text),
            tool_choice=self.tool_choice or "auto",
            tools=[ReturnedTool(one.name, one.parameters, one.strict, one.description) for one in self.tools or ()],
            top_logprobs=self.top_logprobs or 0,
            top_p=self.top_p,
            user=UNSET if self.user is None else self.user,
        )


def _format(text: ResponseText) -> ResponseFormat | None:
    match text.format:
        case ResponseJsonSchemaFormat(name=name, schema=schema, description=description, strict=strict):
            return JsonSchemaFormat(JsonSchemaDefinition(name, schema, description, strict))
        case JsonObjectFormat():
            return text.format
    return None


def _told_text(text: ResponseText | None) -> ResponseText:
    return ResponseText(text.format if text is not None and text.format is not None else TextFormat(), "medium")


def _function(tool: ResponseTool) -> FunctionTool:
    return FunctionTool("function", FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict))


def _choice(body: ResponseBody) -> Literal["none", "auto", "required"] | ToolChoice | None:
    if isinstance(body.tool_choice, ResponseToolChoice):
        chosen = {"type": "function", "function": {"name": body.tool_choice.name}}
        return msgspec.convert(chosen, ToolChoice)
    # What is the default anyway needs no tools.
    return body.tool_choice if body.tools or body.tool_choice != "auto" else None
