"""`/tokenize` and `/detokenize`, which cost nothing: vLLM's answers, made with the gateway's own tokenizers."""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, FailFast, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel as ServedModel
from tokenyard.core.principal import Principal
from tokenyard.gateway.counting.chat_template import NotRendered
from tokenyard.gateway.counting.model_tokenizer import ModelTokenizer
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.ports import ModelResolver
from tokenyard.web.auth import InferenceTenant

MAX_TEXT = 131_072
MAX_TOKENS = 131_072
MAX_MESSAGES = 1024
_LAST_ID = 2**31 - 1

_Model = Annotated[str, Field(min_length=1, max_length=255)]


class ChatText(BaseModel, extra="forbid", strict=True):
    """A message of plain text."""

    role: Literal["developer", "system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_TEXT)]


class TokenizeRequest(BaseModel, extra="forbid", strict=True):
    """A `prompt`, or `messages` as the model's chat template prints them. Special tokens are added to a prompt only,
    unless `add_special_tokens` says otherwise.
    """

    model: _Model
    prompt: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    messages: Annotated[list[ChatText], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool | None = None
    return_token_strs: bool = False

    def checked(self) -> "TokenizeRequest":
        """Return it; one that is neither or both, or too long, raises `InvalidRequest`."""
        if (self.prompt is None) is (self.messages is None):
            raise InvalidRequest("Either 'prompt' or 'messages' is needed, and not both.", param="prompt")
        if sum(len(message.content) for message in self.messages or ()) > MAX_TEXT:
            raise InvalidRequest(f"'messages' are over {MAX_TEXT} characters.", param="messages")
        return self


class Tokens(BaseModel):
    """`max_model_len` is the model's context; `token_strs` are null unless they were asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(BaseModel, extra="forbid", strict=True):
    """Token ids of a model."""

    model: _Model
    # To say of each of them what is wrong would take long.
    tokens: Annotated[list[Annotated[int, Field(ge=0, le=_LAST_ID)]], Field(max_length=MAX_TOKENS), FailFast()]


class Detokenized(BaseModel):
    """The text of the tokens."""

    prompt: str


def tokenize_router(models: ModelResolver, counter: TokenCounter) -> APIRouter:
    """Return the routes, under vLLM's own paths and under `/v1`."""
    routes = APIRouter(tags=["inference"])

    async def made(tenant: Principal, name: str, work: Callable[[ModelTokenizer, ServedModel], bytes]) -> Response:
        model = await models.resolve(tenant.organization, name)
        tenant.check_model(model.name)
        base = model.base
        content = await counter.tokenize(tenant.organization, base, lambda tokenizer: work(tokenizer, base))
        if content is None:
            raise InvalidRequest(f"The tokenizer of `{name}` is not known here.", param="model")
        return Response(content, media_type="application/json")

    @routes.post("/tokenize", response_model=Tokens, operation_id="tokenize")
    @routes.post("/v1/tokenize", response_model=Tokens, operation_id="tokenize_v1")
    async def tokenize(tenant: InferenceTenant, body: TokenizeRequest) -> Response:
        """Return the tokens of a prompt or a chat."""
        body.checked()
        return await made(tenant, body.model, lambda tokenizer, base: _tokens(tokenizer, base, body))

    @routes.post("/detokenize", response_model=Detokenized, operation_id="detokenize")
    @routes.post("/v1/detokenize", response_model=Detokenized, operation_id="detokenize_v1")
    async def detokenize(tenant: InferenceTenant, body: DetokenizeRequest) -> Response:
        """Return the text of tokens."""
        return await made(tenant, body.model, lambda tokenizer, _base: _text(tokenizer, body.tokens))

    return routes


def _tokens(tokenizer: ModelTokenizer, base: ServedModel, body: TokenizeRequest) -> bytes:
    add_special_tokens = body.messages is None if body.add_special_tokens is None else body.add_special_tokens
    ids = tokenizer.encode(_prompt(tokenizer, body), add_special_tokens=add_special_tokens)
    told = {
        "count": len(ids),
        "max_model_len": base.context_length,
        "tokens": ids,
        "token_strs": tokenizer.strings(ids) if body.return_token_strs else None,
    }
    return msgspec.json.encode(told)


def _prompt(tokenizer: ModelTokenizer, body: TokenizeRequest) -> str:
    if body.messages is None:
        return body.prompt or ""
    # As chats are sent to the engine.
    chat = [("system" if one.role == "developer" else one.role, one.content) for one in body.messages]
    try:
        return tokenizer.template.render(chat, add_generation_prompt=body.add_generation_prompt)
    except NotRendered as error:
        raise InvalidRequest(f"'messages': {error}.", param="messages") from error


def _text(tokenizer: ModelTokenizer, tokens: list[int]) -> bytes:
    try:
        return msgspec.json.encode({"prompt": tokenizer.decode(tokens)})
    except LookupError as error:
        raise InvalidRequest(f"Invalid 'tokens': {error}", param="tokens") from error
