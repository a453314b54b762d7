"""Another company's OpenAI-compatible server, without a model: its own names and extra fields, and faults on demand."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

from support.servers.asgi import read_body, running, until_disconnected
from support.servers.certificates import ServerCertificate

THERE = "their-model-2026"
KEY_THERE = "sk-elsewhere-secret"
USAGE: Mapping[str, Any] = {
    "prompt_tokens": 7,
    "completion_tokens": 8,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 1, "accepted_prediction_tokens": 0},
    "cost": 0.0123,
}
_LINE_ENDS = b"\r\n\r\n"
_SILENCE_S = 60.0
_ACCOUNT = [(b"openai-organization", b"org-the-operators"), (b"x-ratelimit-remaining-tokens", b"12")]


@dataclass
class Elsewhere:
    """How it answers. `usage` is told once, apart from the choices; with `usage_with_end` in the last of them.

    After so many words it is cut, silent, or sends `raw` as it is and ends. `finishes` says whether the answer is ended
    by its words' end, and `says_done` by `[DONE]`.
    """

    words: int = 8
    usage: Mapping[str, Any] | None = field(default_factory=lambda: dict(USAGE))
    usage_with_end: bool = False
    delay_s: float = 0.0
    cut_at: int | None = None
    silent_at: int | None = None
    raw_at: int | None = None
    raw: bytes = b""
    finishes: bool = True
    says_done: bool = True
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    sent: int = 0
    left: bool = False


class _Cut(Exception):
    """Breaks the connection."""


class ServerElsewhereFake:
    """A bare ASGI application."""

    def __init__(self) -> None:
        self.behaviour = Elsewhere()
        self.log: list[Asked] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        asked = Asked(scope["path"], headers, orjson.loads(await read_body(receive)))
        self.log.append(asked)
        behaviour = self.behaviour
        if headers.get("authorization") != f"Bearer {KEY_THERE}":
            error = {"message": f"Incorrect API key provided: {KEY_THERE[:6]}", "code": "invalid_api_key"}
            await _reply(send, 401, orjson.dumps({"error": error}), {})
        elif behaviour.status != 200:
            await _reply(send, behaviour.status, behaviour.body, behaviour.headers)
        elif asked.body.get("stream"):
            await _stream(asked, behaviour, receive, send)
        else:
            await _whole(asked, behaviour, receive, send)


@asynccontextmanager
async def running_elsewhere(
    server: ServerElsewhereFake, certificate: ServerCertificate | None = None
) -> AsyncIterator[str]:
    """Serve it, with TLS where there is a certificate; yield the URL that a model file would name."""
    config = None
    if certificate is not None:
        config = uvicorn.Config(
            server,
            http="httptools",
            lifespan="off",
            log_level="critical",
            ssl_certfile=certificate.certificate,
            ssl_keyfile=certificate.key,
            timeout_graceful_shutdown=1,
        )
    async with running(server, config=config) as url:
        yield f"{url if certificate is None else url.replace('http', 'https', 1)}/v1"


async def _stream(asked: Asked, behaviour: Elsewhere, receive: Receive, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"), *_ACCOUNT]}
    )
    gone = asyncio.ensure_future(until_disconnected(receive))
    try:
        await _piece(send, b": THEIR PROCESSING" + _LINE_ENDS)
        await _event(send, asked, [_choice(asked, at, "") for at in range(asked.body.get("n", 1))])
        async for number in _words(asked, behaviour, gone):
            if number == behaviour.raw_at:
                await _piece(send, behaviour.raw, more=False)
                return
            await _event(send, asked, [_choice(asked, at, f"word{number} ") for at in range(asked.body.get("n", 1))])
        if asked.left:
            return
        ending = [_choice(asked, at, "", "stop") for at in range(asked.body.get("n", 1))]
        if behaviour.finishes:
            await _event(send, asked, ending, behaviour.usage if behaviour.usage_with_end else None)
        if (
            behaviour.usage
            and not behaviour.usage_with_end
            and asked.body.get("stream_options", {}).get("include_usage")
        ):
            await _event(send, asked, [], behaviour.usage)
        await _piece(send, b"data: [DONE]" + _LINE_ENDS if behaviour.says_done else b"", more=False)
    finally:
        gone.cancel()


async def _whole(asked: Asked, behaviour: Elsewhere, receive: Receive, send: Send) -> None:
    gone = asyncio.ensure_future(until_disconnected(receive))
    try:
        words = [number async for number in _words(asked, behaviour, gone)]
    except _Cut:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise
    finally:
        gone.cancel()
    if asked.left:
        return
    if behaviour.raw_at is not None:
        await _reply(send, 200, behaviour.raw, {})
        return
    text = "".join(f"word{number} " for number in words)
    choices = [{**_choice(asked, at, text, "stop"), **_message(asked, text)} for at in range(asked.body.get("n", 1))]
    for choice in choices:
        choice.pop("delta", None)
    usage = {"usage": behaviour.usage} if behaviour.usage is not None else {}
    await _reply(send, 200, orjson.dumps({**_head(asked), "choices": choices, **usage}), {})


async def _words(asked: Asked, behaviour: Elsewhere, gone: "asyncio.Future[None]") -> AsyncIterator[int]:
    for number in range(1, behaviour.words + 1):
        await asyncio.wait({gone}, timeout=behaviour.delay_s)
        if gone.done():
            asked.left = True
            return
        if asked.sent == behaviour.cut_at:
            raise _Cut
        if asked.sent == behaviour.silent_at:
            await asyncio.wait({gone}, timeout=_SILENCE_S)
            asked.left = True
            return
        asked.sent += 1
        yield number


def _head(asked: Asked) -> dict[str, Any]:
    """Their name of the model, and fields that OpenAI does not have."""
    return {
        "id": "gen-17",
        "created": 1_800_000_000,
        "model": THERE,
        "provider": "Their cloud",
        "system_fingerprint": "fp_theirs",
        "object": "chat.completion.chunk" if "messages" in asked.body else "text_completion",
    }


def _choice(asked: Asked, index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": index, "finish_reason": finish, "native_finish_reason": finish, "logprobs": None}
    if "messages" in asked.body:
        return {**choice, "delta": {"role": "assistant", "content": text, "annotations": []}}
    return {**choice, "text": text}


def _message(asked: Asked, text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, "annotations": []}} if "messages" in asked.body else {}


async def _event(
    send: Send, asked: Asked, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None = None
) -> None:
    told = {**_head(asked), "choices": choices, **({"usage": usage} if usage is not None else {})}
    await _piece(send, b"data:" + orjson.dumps(told) + _LINE_ENDS)


async def _piece(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _reply(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    own = [(name.encode(), value.encode()) for name, value in headers.items()]
    length = (b"content-length", str(len(body)).encode())
    json = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [json, length, *own, *_ACCOUNT]})
    await send({"type": "http.response.body", "body": body})
