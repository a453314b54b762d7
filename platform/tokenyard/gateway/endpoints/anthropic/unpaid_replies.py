"""Lets routes of the control plane answer clients of Anthropic's API: in its errors, and its lists of models."""

from datetime import UTC, datetime
from typing import Literal

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.gateway.endpoints.anthropic.errors import ANTHROPIC_ERRORS, as_anthropic
from tokenyard.web.errors import OPENAI_ERRORS, ErrorShape

MESSAGES_PATH = "/v1/messages"
MODELS_PATH = "/v1/models"
_VERSION = b"anthropic-version"


class _Model(msgspec.Struct):
    id: str
    created: int


class _Models(msgspec.Struct):
    data: list[_Model]
    has_more: bool = False


class AnthropicModel(msgspec.Struct, tag_field="type", tag="model"):
    """Anthropic's model."""

    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"


class AnthropicModels(msgspec.Struct):
    """A page of Anthropic's list of models."""

    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool


def errors_at(url: bytes) -> ErrorShape:
    """Tell how errors are told to who asks for `url`, of which only the beginning may be there."""
    path = url.partition(b"?")[0].decode("latin-1")
    return ANTHROPIC_ERRORS if _of_messages(path) else OPENAI_ERRORS


class AnthropicReplies:
    """Translates what `app` answers to routes under `/v1/messages`, and of models to who sends `anthropic-version`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and _asks(scope)
        await self._app(scope, receive, _Translated(scope, send) if asked else send)


class _Translated:
    """Sends one reply, which it holds until it is whole: it is small."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._path = scope["path"]
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        headers = MutableHeaders(scope=self._start)
        request_id = headers["x-request-id"]
        body = self._translated(self._start["status"], request_id)
        headers["request-id"] = request_id
        headers["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

    def _translated(self, status: int, request_id: str) -> bytes:
        if status >= 400:
            return as_anthropic(status, self._body, request_id)
        if _of_messages(self._path):
            return self._body
        if self._path == MODELS_PATH:
            return msgspec.json.encode(_listed(msgspec.json.decode(self._body, type=_Models)))
        return msgspec.json.encode(_model(msgspec.json.decode(self._body, type=_Model)))


def _asks(scope: Scope) -> bool:
    path, method = scope["path"], scope["method"]
    of_models = path == MODELS_PATH or path.startswith(MODELS_PATH + "/")
    return _of_messages(path) or (
        of_models and method == "GET" and any(name == _VERSION for name, _ in scope["headers"])
    )


def _of_messages(path: str) -> bool:
    return path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/")


def _listed(page: _Models) -> AnthropicModels:
    models = [_model(model) for model in page.data]
    first, last = (models[0].id, models[-1].id) if models else (None, None)
    return AnthropicModels(models, first, last, page.has_more)


def _model(model: _Model) -> AnthropicModel:
    return AnthropicModel(model.id, model.id, datetime.fromtimestamp(model.created, UTC))
