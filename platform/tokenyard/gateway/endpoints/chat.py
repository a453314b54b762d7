"""`POST /v1/chat/completions`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import AnswerHead, GenerationBody, MaxTokens, Metadata, Prompt
from tokenyard.gateway.endpoints.chat_messages import (
    ChatMessage,
    FunctionTool,
    JsonSchemaFormat,
    ResponseFormat,
    ToolCall,
    ToolChoice,
    as_in_a_template,
    texts,
    tidy,
)
from tokenyard.gateway.endpoints.invalid_body import bounded, invalid
from tokenyard.gateway.endpoints.kept_chat import KeptChatAnswer
from tokenyard.gateway.endpoints.usage import CompletionUsage

MAX_MESSAGES = 4096
MAX_TOOLS = 128


class ChatBody(GenerationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation to answer. `max_completion_tokens` and the older `max_tokens` are one thing, by default the
    model's own and never more than its context has room for. `tool_choice` goes with `tools`.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "audio": "this model answers in text only.",
        "function_call": "use 'tools' and 'tool_choice'.",
        "functions": "use 'tools' and 'tool_choice'.",
    }
    not_sent: ClassVar[frozenset[str]] = GenerationBody.not_sent | {
        *("max_completion_tokens", "modalities", "reasoning_effort", "verbosity")
    }

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    audio: None = None
    function_call: None = None
    functions: None = None
    logprobs: bool | None = None
    max_completion_tokens: MaxTokens | None = None
    max_tokens: MaxTokens | None = None
    metadata: Metadata | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    moderation: None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none"] | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    tools: Annotated[list[FunctionTool], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def logprobs_per_token(self) -> int:
        return 1 + (self.top_logprobs or 0) if self.logprobs else 0

    @property
    def stores(self) -> bool:
        return bool(self.store)

    def check(self) -> None:
        super().check()
        if self.metadata and not self.store:
            raise InvalidRequest("The 'metadata' parameter is only allowed when 'store' is enabled.", param="metadata")
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "it is only allowed when 'logprobs' is enabled.")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest(
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
                param="max_tokens",
            )
        if isinstance(self.response_format, JsonSchemaFormat):
            bounded("response_format", self.response_format.json_schema.schema)
        bounded("tools", [tool.function.parameters for tool in self.tools or ()])
        tidy(self.messages)

    def check_model(self, model: BaseModel) -> None:
        """Refuse also tools where the model cannot call them, and a choice of one that is not there."""
        super().check_model(model)
        wanted = self.tool_choice != "none" and (self.tools or self.tool_choice)
        if wanted and not model.calls_tools:
            raise InvalidRequest("This model does not call tools.", param="tools", code="unsupported_parameter")
        if wanted and not self.tools:
            raise InvalidRequest("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        if isinstance(self.tool_choice, ToolChoice):
            chosen = self.tool_choice.function.name
            if chosen not in (tool.function.name for tool in self.tools or ()):
                raise invalid("tool_choice", f"no tool of the name '{chosen[:64]}'.")

    def prompts(self, model: BaseModel) -> list[Prompt]:
        """Return the one prompt: all texts that the template may print, and what the template adds."""
        printed = [text for message in self.messages for text in texts(message)]
        if self.tools:
            printed.append(as_in_a_template(self.tools))
        return [Prompt(printed, model.template_tokens + model.template_tokens_per_message * len(self.messages))]

    def answer(self, head: AnswerHead) -> Answer:
        if not self.store:
            return super().answer(head)
        return KeptChatAnswer(
            include_usage=self.include_usage,
            choices_per_prompt=self.choices,
            messages=msgspec.to_builtins(self.messages),
            metadata=self.metadata or {},
        )


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TokenLogprob(msgspec.Struct):
    """`bytes` is null where the token is no text of its own."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenTokenLogprob(TokenLogprob):
    """A token of the answer, and those that were the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(msgspec.Struct):
    """Log probabilities of the answer's tokens."""

    content: list[ChosenTokenLogprob] | None
    refusal: list[ChosenTokenLogprob] | None


class ChatReplyMessage(msgspec.Struct):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: ChatReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: str | UnsetType = UNSET


class CalledFunctionDelta(msgspec.Struct):
    """More of a called function."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """More of the tool call at `index`."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: CalledFunctionDelta | UnsetType = UNSET


class ChatDelta(msgspec.Struct):
    """More of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    """More of one answer."""

    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | UnsetType | None = UNSET


class ChatCompletionChunk(msgspec.Struct):
    """One event of a stream. Where usage was asked for, a last event before `[DONE]` tells it and has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType = UNSET
