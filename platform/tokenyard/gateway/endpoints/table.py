"""The one table of the paid endpoints. What stands in it is served, described in the OpenAPI document, and tested."""

from dataclasses import dataclass
from functools import cached_property
from types import UnionType
from typing import TypeVar

import msgspec

from tokenyard.gateway.endpoints.anthropic.errors import ANTHROPIC_ERRORS
from tokenyard.gateway.endpoints.anthropic.message import MessageEvent, OutputMessage
from tokenyard.gateway.endpoints.anthropic.messages import MessagesBody
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.body_bounds import check_values
from tokenyard.gateway.endpoints.chat import ChatBody, ChatCompletion, ChatCompletionChunk
from tokenyard.gateway.endpoints.completions import Completion, CompletionBody
from tokenyard.gateway.endpoints.embeddings import EmbeddingBody, EmbeddingList
from tokenyard.gateway.endpoints.invalid_body import invalid_body
from tokenyard.gateway.endpoints.responses.body import ResponseBody
from tokenyard.gateway.endpoints.responses.output import Response, ResponseEvent
from tokenyard.gateway.endpoints.scoring import Ranking, RerankBody, ScoreBody, ScoreList
from tokenyard.web.errors import OPENAI_ERRORS, ErrorShape

Body = TypeVar("Body", bound=PaidBody)

_DATA_EVENTS = (
    "events whose `data` is an object each, and then `[DONE]`. An event that holds an `error` ends a stream that failed"
)
_NAMED_EVENTS = "events that have their type as their name, and their `data` is an object each"
_TYPED_EVENTS = "events whose `data` is an object each, which tells its type"


@dataclass(frozen=True)
class Endpoint:
    """One paid endpoint: the types of its body, of a whole answer and of one event of a stream, where it has one.

    `input` is the field that holds the prompt; `upstream` is the path at the replica. `methods` are all that are served
    at the same path.
    """

    path: str
    operation: str
    summary: str
    input: str
    body: type[PaidBody]
    reply: type[msgspec.Struct]
    event: type[msgspec.Struct] | UnionType | None
    upstream: str
    stream: str = _DATA_EVENTS
    errors: ErrorShape = OPENAI_ERRORS
    methods: str = "POST"

    @property
    def ends_with_done(self) -> bool:
        """Whether `[DONE]` comes after the last event of a stream."""
        return self.stream == _DATA_EVENTS

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[PaidBody]:
        return msgspec.json.Decoder(self.body)

    def parse(self, raw: bytes) -> PaidBody:
        """Read and check a request body; the `InvalidRequest` names the field that is missing, unknown or wrong."""
        return read_body(raw, self._decoder)


def read_body(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Read and check a body; the `InvalidRequest` names the field that is missing, unknown or wrong."""
    check_values(raw)
    try:
        body = decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_body(error, decoder.type.refused) from error
    body.check()
    return body


CHAT = Endpoint(
    path="/v1/chat/completions",
    operation="createChatCompletion",
    summary="Answer a conversation",
    input="messages",
    body=ChatBody,
    reply=ChatCompletion,
    event=ChatCompletionChunk,
    upstream="/v1/chat/completions",
)
COMPLETIONS = Endpoint(
    path="/v1/completions",
    operation="createCompletion",
    summary="Continue a text",
    input="prompt",
    body=CompletionBody,
    reply=Completion,
    event=Completion,
    upstream="/v1/completions",
)
MESSAGES = Endpoint(
    path="/v1/messages",
    operation="createMessage",
    summary="Answer a conversation, as Anthropic's Messages API does",
    input="messages",
    body=MessagesBody,
    reply=OutputMessage,
    event=MessageEvent,
    upstream="/v1/chat/completions",
    stream=_NAMED_EVENTS,
    errors=ANTHROPIC_ERRORS,
)
EMBEDDINGS = Endpoint(
    path="/v1/embeddings",
    operation="createEmbedding",
    summary="Embed texts",
    input="input",
    body=EmbeddingBody,
    reply=EmbeddingList,
    event=None,
    upstream="/v1/embeddings",
)
SCORE = Endpoint(
    path="/v1/score",
    operation="createScore",
    summary="Compare texts",
    input="documents",
    body=ScoreBody,
    reply=ScoreList,
    event=None,
    upstream="/score",
)
RERANK = Endpoint(
    path="/v1/rerank",
    operation="createRerank",
    summary="Put documents into order",
    input="documents",
    body=RerankBody,
    reply=Ranking,
    event=None,
    upstream="/score",
)
RESPONSES = Endpoint(
    path="/v1/responses",
    operation="createResponse",
    summary="Answer a conversation, and keep it",
    input="input",
    body=ResponseBody,
    reply=Response,
    event=ResponseEvent,
    upstream="/v1/chat/completions",
    stream=_TYPED_EVENTS,
)
ENDPOINTS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, SCORE, RERANK)
