"""What a first request would wait for is done before the replica says that it is ready.

vLLM imports, compiles and builds much of what it needs when a request first asks for it, and its engine stands still
for everybody meanwhile (measured: 16 s for the first `logprobs`).
"""

import asyncio
import logging
from typing import Any

import httpx
from starlette.types import ASGIApp

from tokenyard.core.models import ModelSpec, ModelTask

_LOG = logging.getLogger(__name__)
TIMEOUT_S = 300.0
_TEXT = "Hello! Tell me about the sea."
_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": _TEXT}], "max_tokens": 2}
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[a-z]{1,8}$"}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
_Requests = tuple[tuple[str, dict[str, Any]], ...]
_CHATS: _Requests = (
    ("/v1/chat/completions", _CHAT | {"temperature": 0, "logprobs": True, "top_logprobs": 5}),
    ("/v1/chat/completions", _CHAT | {"temperature": 1, "top_p": 0.9, "stream": True, "n": 2}),
    ("/v1/chat/completions", _CHAT | {"temperature": 1, "top_k": 20, "min_p": 0.1, "seed": 1}),
    (
        "/v1/chat/completions",
        _CHAT
        | {"frequency_penalty": 0.5, "presence_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {"1": 1}}
        | {"stop": ["\n\n"]},
    ),
    ("/v1/chat/completions", _CHAT | {"response_format": {"type": "json_object"}}),
    (
        "/v1/chat/completions",
        _CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "warm", "schema": _SCHEMA}}},
    ),
    ("/v1/completions", {"prompt": _TEXT, "max_tokens": 2, "logprobs": 5, "echo": True}),
    ("/v1/responses", {"input": _TEXT, "max_output_tokens": 2}),
)
_EMBEDDINGS: _Requests = (
    ("/v1/embeddings", {"input": [_TEXT, "The sea."]}),
    ("/v1/embeddings", {"input": _TEXT, "encoding_format": "base64"}),
    ("/score", {"queries": _TEXT, "documents": "The sea."}),
)
REQUESTS = {ModelTask.CHAT: _CHATS, ModelTask.EMBEDDING: _EMBEDDINGS}


async def warm_up(app: ASGIApp, spec: ModelSpec) -> None:
    """Send each kind of request once; `app` is vLLM's own, without our door.

    Raises:
        TimeoutError: the engine does not answer.
    """
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=None) as client,  # noqa: S113
    ):
        await asyncio.gather(*(_ask(client, path, {**body, "model": spec.id}) for path, body in REQUESTS[spec.task]))


async def _ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await client.post(path, json=body)
    # A client would get the same answer: what cannot be warmed cannot be served either.
    if answer.status_code >= 500:
        _LOG.warning("warming up, %s answered %s: %s", path, answer.status_code, answer.text[:500])
