"""The one table of the paid endpoints. What stands in it is served, described in the OpenAPI document, and tested."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import msgspec

from tokenyard.core.errors import TokenyardError, error_body
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.body_bounds import check_values
from tokenyard.gateway.endpoints.chat import ChatBody, ChatCompletion, ChatCompletionChunk
from tokenyard.gateway.endpoints.completions import Completion, CompletionBody
from tokenyard.gateway.endpoints.embeddings import EmbeddingBody, EmbeddingList
from tokenyard.gateway.endpoints.invalid_body import invalid_body
from tokenyard.gateway.endpoints.scoring import Ranking, RerankBody, ScoreBody, ScoreList


@dataclass(frozen=True)
class Endpoint:
    """One paid endpoint: the types of its body, of a whole answer and of one event of a stream, where it has one.

    `input` is the field that holds the prompt; `upstream` is the path at the replica; `error_body` writes an error.
    """

    path: str
    operation: str
    summary: str
    input: str
    body: type[PaidBody]
    reply: type[msgspec.Struct]
    event: type[msgspec.Struct] | None
    upstream: str
    error_body: Callable[[TokenyardError], bytes] = error_body

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[PaidBody]:
        return msgspec.json.Decoder(self.body)

    def parse(self, raw: bytes) -> PaidBody:
        """Read and check a request body; the `InvalidRequest` names the field that is missing, unknown or wrong."""
        check_values(raw)
        try:
            body = self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_body(error, self.body.refused) from error
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
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, SCORE, RERANK)
