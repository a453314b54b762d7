"""`POST /v1/messages`: its body, and how it is asked of a server of chat completions."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.anthropic.answer import MessageAnswer
from tokenyard.gateway.endpoints.anthropic.blocks import (
    AdaptiveThinking,
    AnyChoice,
    AutoChoice,
    CacheControl,
    CustomTool,
    DisabledThinking,
    InputMessage,
    NamedChoice,
    NoneChoice,
    OutputConfig,
    RequestMetadata,
    TextAlone,
    ToolUseChoice,
)
from tokenyard.gateway.endpoints.anthropic.conversation import chat_messages
from tokenyard.gateway.endpoints.body import MAX_STOP_CHARS, MODELS_OWN, AnswerHead, MaxTokens, PaidBody, Prompt, Share
from tokenyard.gateway.endpoints.chat import MAX_MESSAGES, MAX_TOOLS, ChatBody
from tokenyard.gateway.endpoints.chat_messages import (
    MAX_PARTS,
    FunctionDefinition,
    FunctionTool,
    JsonSchemaDefinition,
    JsonSchemaFormat,
    ToolChoice,
)
from tokenyard.gateway.endpoints.invalid_body import Json, blamed_on, bounded, invalid, unsupported

_CONTINUED: Json = {"continue_final_message": True, "add_generation_prompt": False}
_MESSAGES = "messages"

_Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]


class ConversationBody(PaidBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """What a model is made to read."""

    messages: Annotated[list[InputMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    cache_control: CacheControl | None = None
    output_config: OutputConfig | None = None
    speed: Literal["standard"] | None = None
    system: str | Annotated[list[TextAlone], Meta(max_length=MAX_PARTS)] | None = None
    thinking: DisabledThinking | AdaptiveThinking | None = None
    tool_choice: ToolUseChoice | None = None
    tools: Annotated[list[CustomTool], Meta(max_length=MAX_TOOLS)] | None = None

    @cached_property
    def chat(self) -> ChatBody:
        """The same as a body of chat completions."""
        return self.translated()

    def translated(self) -> ChatBody:
        return ChatBody(
            model=self.model,
            messages=chat_messages(self.system, self.messages),
            parallel_tool_calls=_parallel(self.tool_choice),
            reasoning_effort="none" if isinstance(self.thinking, DisabledThinking) else None,
            response_format=_format(self.output_config),
            tool_choice=_choice(self.tool_choice),
            tools=[_tool(tool, self.tool_choice) for tool in self.tools or ()] or None,
        )

    def check(self) -> None:
        if self.output_config is not None and self.output_config.format is not None:
            bounded("output_config", self.output_config.format.schema)
        chat = self.chat
        with blamed_on(_MESSAGES):
            chat.check()
        if chat.messages[-1].tool_calls:
            raise invalid(f"messages[{len(self.messages) - 1}]", "a 'tool_use' waits for its 'tool_result'.")

    def check_model(self, model: BaseModel) -> None:
        if isinstance(self.thinking, DisabledThinking) and model.reasons:
            raise unsupported("thinking", "how much this model thinks cannot be chosen.")
        with blamed_on(_MESSAGES):
            self.chat.check_model(model)

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return self.chat.prompts(model)


class MessagesBody(ConversationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation to answer, as Anthropic's Messages API takes it."""

    refused: ClassVar[Mapping[str, str]] = {
        "container": "no code is run here.",
        "diagnostics": "why a cache did not help is not told.",
        "inference_geo": "where a model runs cannot be chosen.",
    }

    container: None = None
    diagnostics: None = None
    inference_geo: None = None
    max_tokens: MaxTokens
    metadata: RequestMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stop_sequences: Annotated[list[_Stop], Meta(max_length=4)] | None = None
    temperature: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000, description=MODELS_OWN)] | None = None
    top_p: Share | None = None

    @property
    def end_user(self) -> str:
        return self.chat.end_user

    @property
    def wanted_tokens(self) -> int:
        return self.max_tokens

    def translated(self) -> ChatBody:
        return msgspec.structs.replace(
            super().translated(),
            max_tokens=self.max_tokens,
            safety_identifier=None if self.metadata is None else self.metadata.user_id,
            service_tier="default" if self.service_tier == "standard_only" else self.service_tier,
            stop=self.stop_sequences or None,
            stream=self.stream,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        sent = self.chat.sent(model, max_tokens)
        return sent | _CONTINUED if self.chat.messages[-1].role == "assistant" else sent

    def answer(self, head: AnswerHead) -> Answer:
        return MessageAnswer(head)


class CountTokensBody(ConversationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation whose tokens to count."""

    stream: None = None


def _tool(tool: CustomTool, choice: ToolUseChoice | None) -> FunctionTool:
    strict = tool.strict
    if strict is None and isinstance(choice, AnyChoice | NamedChoice):
        strict = True  # who must use a tool, whether it can or not, is to give it an input at least
    return FunctionTool("function", FunctionDefinition(tool.name, tool.description, tool.input_schema, strict))


def _choice(choice: ToolUseChoice | None) -> Literal["none", "auto", "required"] | ToolChoice | None:
    match choice:
        case AutoChoice():
            return "auto"
        case AnyChoice():
            return "required"
        case NamedChoice():
            return msgspec.convert({"type": "function", "function": {"name": choice.name}}, ToolChoice)
        case NoneChoice():
            return "none"
    return None


def _parallel(choice: ToolUseChoice | None) -> bool | None:
    wanted = choice is None or isinstance(choice, NoneChoice) or not choice.disable_parallel_tool_use
    return None if wanted else False


def _format(config: OutputConfig | None) -> JsonSchemaFormat | None:
    if config is None or config.format is None:
        return None
    return JsonSchemaFormat(JsonSchemaDefinition("output", config.format.schema, strict=True))
