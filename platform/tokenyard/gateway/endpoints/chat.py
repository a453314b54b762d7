"""`POST /v1/chat/completions`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.core.usage import MAX_END_USER_CHARS
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import (
    AnswerHead,
    EndUser,
    GenerationBody,
    MaxTokens,
    Metadata,
    Prompt,
    ServedTier,
    ServiceTier,
    served_tier,
)
from tokenyard.gateway.endpoints.chat_answers import KeptChatAnswer, TieredAnswer
from tokenyard.gateway.endpoints.chat_contents.images import check_images
from tokenyard.gateway.endpoints.chat_messages import (
    AllowedTools,
    ChatMessage,
    FunctionTool,
    JsonSchemaFormat,
    ResponseFormat,
    ToolCall,
    ToolChoice,
    as_in_a_template,
    images,
    texts,
    tidy,
)
from tokenyard.gateway.endpoints.invalid_body import Json, bounded, invalid, unsupported
from tokenyard.gateway.endpoints.usage import CompletionUsage

MAX_MESSAGES = 4096
MAX_TOOLS = 128
_HINT = "A hint: requests with the same one go to the same server where they can. It is your organization's own."


class ChatBody(GenerationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation to answer. `max_completion_tokens` and the older `max_tokens` are one thing, by default the
    model's own and never more than its context has room for. `tool_choice` goes with `tools`. `safety_identifier` and
    the older `user` are one thing, too. Fields of one value only ask for what is done anyway.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "audio": "this model answers in text only.",
        "function_call": "use 'tools' and 'tool_choice'.",
        "functions": "use 'tools' and 'tool_choice'.",
        "prediction": "an answer cannot be predicted here.",
        "prompt_cache_options": "what is cached, and for how long, cannot be chosen here.",
    }
    not_sent: ClassVar[frozenset[str]] = GenerationBody.not_sent | {
        *("max_completion_tokens", "modalities", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort"),
        *("safety_identifier", "service_tier", "verbosity"),
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
    prediction: None = None
    prompt_cache_key: Annotated[str, Meta(max_length=MAX_END_USER_CHARS, description=_HINT)] | None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    reasoning_effort: Literal["none"] | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: EndUser | None = None
    service_tier: ServiceTier | None = None
    store: bool | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | AllowedTools | None = None
    tools: Annotated[list[FunctionTool], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def end_user(self) -> str:
        return self.safety_identifier or self.user or ""

    @property
    def cache_key(self) -> str:
        return self.prompt_cache_key or ""

    @property
    def tier(self) -> str:
        return served_tier(self.service_tier)

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
        if self.tools:
            bounded("tools", [tool.function.parameters for tool in self.tools])
        tidy(self.messages)

    def check_model(self, model: BaseModel) -> None:
        """Refuse also tools where the model cannot call them, and a choice of one that is not there; and images."""
        super().check_model(model)
        if self.reasoning_effort is not None and model.reasons:
            raise unsupported("reasoning_effort", "how much this model thinks cannot be chosen.")
        check_images(self.messages, model)
        wanted = self.tool_choice != "none" and (self.tools or self.tool_choice)
        if wanted and not model.calls_tools:
            raise InvalidRequest("This model does not call tools.", param="tools", code="unsupported_parameter")
        if not self.tools:
            for name, given in (("tool_choice", wanted), ("parallel_tool_calls", self.parallel_tool_calls is not None)):
                if given:
                    raise InvalidRequest(f"'{name}' is only allowed when 'tools' are specified.", param=name)
        unknown = [name for name in self._chosen_tools if name not in (tool.function.name for tool in self.tools or ())]
        if unknown:
            raise invalid("tool_choice", f"no tool of the name '{unknown[0][:64]}'.")

    @property
    def _chosen_tools(self) -> list[str]:
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            return [choice.function.name]
        return [tool.function.name for tool in choice.allowed_tools.tools] if isinstance(choice, AllowedTools) else []

    def prompts(self, model: BaseModel) -> list[Prompt]:
        """Return the one prompt: all texts that the template may print, what the template adds, and images."""
        read = read_as(self.messages, model)
        printed = [*read.texts, as_in_a_template(self._offered)] if self._offered else read.texts
        return [Prompt(printed, model.template_tokens + read.tokens)]

    @property
    def _offered(self) -> list[FunctionTool]:
        """The tools that the model hears of."""
        if not isinstance(self.tool_choice, AllowedTools):
            return self.tools or []
        return [tool for tool in self.tools or () if tool.function.name in self._chosen_tools]

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        sent = super().sent(model, max_tokens)
        if isinstance(self.tool_choice, AllowedTools):
            sent["tools"] = msgspec.to_builtins(self._offered)
            sent["tool_choice"] = self.tool_choice.allowed_tools.mode
        return sent

    def answer(self, head: AnswerHead) -> Answer:
        if self.store:
            return KeptChatAnswer(
                include_usage=self.include_usage,
                choices_per_prompt=self.choices,
                tier=self._told_tier,
                messages=msgspec.to_builtins(self.messages),
                metadata=self.metadata or {},
            )
        if self._told_tier is None:
            return super().answer(head)
        return TieredAnswer(include_usage=self.include_usage, choices_per_prompt=self.choices, tier=self._told_tier)

    @property
    def _told_tier(self) -> str | None:
        return None if self.service_tier is None else self.tier


def read_as(messages: Sequence[ChatMessage], model: BaseModel) -> Prompt:
    """Return what `messages` are to the model, without what its template adds once."""
    tokens = model.template_tokens_per_message * len(messages)
    if model.images is not None:
        tokens += model.images.tokens * sum(len(images(message)) for message in messages)
    return Prompt([text for message in messages for text in texts(message)], tokens)


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
    service_tier: ServedTier | UnsetType = UNSET


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
    service_tier: ServedTier | UnsetType = UNSET
