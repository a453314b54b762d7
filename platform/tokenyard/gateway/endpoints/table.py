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
from tokenyard.gateway.endpoints.invalid_body import invalid_body
from tokenyard.gateway.endpoints.responses.body import ResponseBody
from tokenyard.gateway.endpoints.responses.output import Response, ResponseEvent


@dataclass(frozen=True)
class Endpoint:
    """One paid endpoint: the types of its body, of a whole answer and of one event of a stream.

    `input` is the field that holds the prompt; `upstream` is the path at the replica; `error_body` writes an error.
    """

    path: str
    operation: str
    summary: str
    input: str
    body: type[PaidBody]
    reply: type[msgspec.Struct]
    event: type[msgspec.Struct]
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
RESPONSES = Endpoint(
    path="/v1/responses",
    operation="createResponse",
    summary="Answer a conversation, and keep it",
    input="input",
    body=ResponseBody,
    reply=Response,
    event=ResponseEvent,
    upstream="/v1/chat/completions",
)
ENDPOINTS = (CHAT, COMPLETIONS, RESPONSES)
