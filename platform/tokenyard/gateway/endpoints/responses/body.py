"""The body of `POST /v1/responses`: what of it is a chat completion, and what is for the gateway."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import (
    MAX_TOKENS,
    AnswerHead,
    EndUser,
    Metadata,
    RepetitionPenalty,
    ServiceTier,
    Share,
    Temperature,
    TopK,
    served_tier,
)
from tokenyard.gateway.endpoints.chat import MAX_TOOLS, ChatBody
from tokenyard.gateway.endpoints.chat_messages import TextFormat
from tokenyard.gateway.endpoints.invalid_body import Json, unsupported
from tokenyard.gateway.endpoints.responses.answer import ResponseAnswer
from tokenyard.gateway.endpoints.responses.conversation import ResponseInputBody
from tokenyard.gateway.endpoints.responses.output import Response, ResponseText, ReturnedTool

LOGPROBS = "message.output_text.logprobs"
MIN_OUTPUT_TOKENS = 16


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Events are never padded, for which `include_obfuscation` would ask."""

    include_obfuscation: Literal[False] | None = None


class ResponseBody(ResponseInputBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A conversation to answer."""

    refused: ClassVar[Mapping[str, str]] = {
        **ResponseInputBody.refused,
        "context_management": "nothing is left out of a conversation here but with 'truncation'.",
        "prompt_cache_options": "what is cached, and for how long, cannot be chosen here.",
        "prompt": "prompt templates are not kept here.",
    }

    background: bool | None = None
    context_management: None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Meta(max_length=8)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=MIN_OUTPUT_TOKENS, le=MAX_TOKENS)] | None = None
    max_tool_calls: (
        Annotated[int, Meta(ge=1, le=MAX_TOOLS, description="Of built-in tools: there are none.")] | None
    ) = None
    metadata: Metadata | None = None
    moderation: None = None
    prompt: None = None
    prompt_cache_key: Annotated[str, Meta(max_length=256)] | None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    safety_identifier: EndUser | None = None
    service_tier: ServiceTier | None = None
    store: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: Temperature | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Share | None = None
    user: EndUser | None = None
    # Not OpenAI's, as of chat.
    min_p: Share | None = None
    repetition_penalty: RepetitionPenalty | None = None
    top_k: TopK | None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_output_tokens

    @property
    def cache_key(self) -> str:
        return self.prompt_cache_key or ""

    @property
    def end_user(self) -> str:
        return self.safety_identifier or self.user or ""

    @property
    def tier(self) -> str:
        return served_tier(self.service_tier)

    @property
    def stores(self) -> bool:
        return self.store is not False

    @property
    def in_background(self) -> bool:
        return bool(self.background)

    def check(self) -> None:
        super().check()
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )
        if self.background and not self.stores:
            raise InvalidRequest("'background' is only allowed when 'store' is enabled.", param="background")
        if self.top_logprobs and not self._tells_logprobs:
            raise unsupported("top_logprobs", f"it goes with '{LOGPROBS}' in 'include'.")

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        return self.chat.sent(model, max_tokens)

    def answer(self, head: AnswerHead) -> Answer:
        return ResponseAnswer(self._response(head), self.items if self.stores else None, stream=bool(self.stream))

    @property
    def _tells_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def translated(self) -> ChatBody:
        return msgspec.structs.replace(
            super().translated(),
            stream=self.stream,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            top_k=self.top_k,
            logprobs=True if self._tells_logprobs else None,
            top_logprobs=self.top_logprobs if self._tells_logprobs else None,
        )

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
            service_tier=served_tier(self.service_tier),
            temperature=self.temperature,
            text=_told_text(self.text),
            tool_choice=self.tool_choice or "auto",
            tools=[ReturnedTool(one.name, one.parameters, one.strict, one.description) for one in self.tools or ()],
            top_logprobs=self.top_logprobs or 0,
            top_p=self.top_p,
            truncation=self.truncation or "disabled",
            user=UNSET if self.user is None else self.user,
        )


def _told_text(text: ResponseText | None) -> ResponseText:
    return ResponseText(text.format if text is not None and text.format is not None else TextFormat(), "medium")
