"""A model server without a model: OpenAI's wire format with no field besides, faults on demand, and a log.

It answers as a replica does, which strips what is vLLM's own. Its log of the tokens it sent is the oracle of the tests:
what it says was sent is what has to be charged.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from support.fakes.pooled_replies import is_pooled, pooled_reply, pooled_tokens
from support.servers.asgi import read_body, until_disconnected
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering import header as meter

ENGINE_FAILED = {"message": "EngineCore encountered an issue.", "type": "server_error", "param": None, "code": None}
_SILENCE_S = 60.0
_HEADERS_JSON = [(b"content-type", b"application/json")]
_HEADERS_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


@dataclass
class Behaviour:
    """How the server answers; a test may change it at any time.

    `tokens` are produced for each choice unless `max_tokens` is lower. `cut_at` breaks the connection after so many
    tokens; `error_at` says `error` after so many, and `end_at` ends the answer there as if it were whole. `status`
    refuses with that status and `body`. `headers` come with every answer. `silent_at` says nothing more after so many
    tokens. `text` is the whole answer, in as many pieces as there are tokens. `call` is a function's name and
    arguments: it is called wherever it is among the tools, until a tool's result comes last.

    `deltas` are what the tokens of a chat say in place of words, one each; `stopped_by` is the stop sequence that was
    met in the end.
    """

    tokens: int = 8
    token_delay_s: float = 0.0
    cached_tokens: int = 0
    cut_at: int | None = None
    error_at: int | None = None
    error: dict[str, Any] = field(default_factory=lambda: dict(ENGINE_FAILED))
    end_at: int | None = None
    silent_at: int | None = None
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content: str = "word"
    text: str | None = None
    call: tuple[str, str] | None = None
    tells_usage: bool = True
    deltas: list[dict[str, Any]] | None = None
    stopped_by: str | None = None

    def says(self, *deltas: dict[str, Any]) -> None:
        """Let the answer to a chat be made of `deltas`."""
        self.deltas, self.tokens = list(deltas), len(deltas)

    def said(self, choices: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
        """Return choices, whole or of token `number`, as `deltas` and `stopped_by` want them."""
        for choice in choices:
            if self.deltas is not None:
                part = "delta" if "delta" in choice else "message"
                choice[part] |= self.deltas[number - 1] if part == "delta" else merged(self.deltas[:number])
                if choice["finish_reason"] == "stop" and any("tool_calls" in delta for delta in self.deltas):
                    choice["finish_reason"] = "tool_calls"
            if self.stopped_by is not None and choice["finish_reason"] == "stop":
                choice["stop_reason"] = self.stopped_by
        return choices


@dataclass
class Sent:
    """One request as the server saw it: whose it was and how many tokens went out."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    claims: MeterClaims
    prompt_tokens: int
    completion_tokens: int = 0
    finished: bool = False
    aborted: bool = False

    @property
    def usage(self) -> TokenUsage:
        return TokenUsage(self.prompt_tokens, self.completion_tokens)


Witness = Callable[[Sent], Awaitable[None]]


class _Cut(Exception):
    """Breaks the connection."""


class MockModelServer:
    """A bare ASGI application. Requests without our bearer or a valid meter header get 401, as from a replica.

    `witness` is called at the end of every request, also of an aborted one: where a replica would report.
    """

    def __init__(self, *, meter_secret: bytes, bearer: str, witness: Witness | None = None) -> None:
        self.behaviour = Behaviour()
        self.log: list[Sent] = []
        self._meter_secret = meter_secret
        self._bearer = f"Bearer {bearer}"
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        raw = await read_body(receive)
        try:
            if headers.get("authorization") != self._bearer:
                raise meter.InvalidMeter("wrong bearer")
            claims = meter.verify(headers.get(meter.HEADER, ""), self._meter_secret)
        except meter.InvalidMeter as error:
            await _reply(send, 401, orjson.dumps({"error": {"message": str(error)}}), {})
            return
        body = orjson.loads(raw)
        sent = Sent(scope["path"], body, headers, claims, _prompt_tokens(body))
        self.log.append(sent)
        await self._serve(sent, receive, send)

    async def _serve(self, sent: Sent, receive: Receive, send: Send) -> None:
        behaviour = self.behaviour
        if behaviour.status != 200:
            await _reply(send, behaviour.status, behaviour.body, behaviour.headers)
            return
        gone = asyncio.ensure_future(until_disconnected(receive))
        try:
            if sent.body.get("stream"):
                await self._stream(sent, behaviour, gone, send)
            else:
                await self._whole(sent, behaviour, gone, send)
        finally:
            gone.cancel()
            if self._witness is not None:
                await self._witness(sent)

    async def _whole(self, sent: Sent, behaviour: Behaviour, gone: "asyncio.Future[None]", send: Send) -> None:
        try:
            async for _ in _tokens(sent, behaviour, gone):
                pass
        except _Cut:
            # Without a start the HTTP server would answer for the application.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            raise
        if sent.aborted:
            return
        sent.finished = True
        if is_pooled(sent.body):
            await _reply(send, 200, orjson.dumps(pooled_reply(sent.body)), behaviour.headers)
            return
        choices = behaviour.said(_choices(sent, behaviour), sent.completion_tokens)
        reply = {**_frame(sent, choices), "usage": _usage(sent.usage, behaviour)}
        reply["object"] = reply["object"].removesuffix(".chunk")
        if not behaviour.tells_usage:
            del reply["usage"]
        await _reply(send, 200, orjson.dumps(reply), behaviour.headers)

    async def _stream(self, sent: Sent, behaviour: Behaviour, gone: "asyncio.Future[None]", send: Send) -> None:
        headers = [*_HEADERS_EVENTS, *_encoded(behaviour.headers)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        options = sent.body.get("stream_options") or {}
        if "messages" in sent.body and behaviour.tells_usage:
            await _roles(sent, behaviour, send)
        async for choice, number in _tokens(sent, behaviour, gone):
            frame = _frame(sent, behaviour.said([_piece(sent, behaviour, choice, number)], number))
            if options.get("continuous_usage_stats") and behaviour.tells_usage:
                frame["usage"] = _usage(TokenUsage(sent.prompt_tokens, number), behaviour)
            await _event(send, frame)
        if sent.aborted:
            return
        if behaviour.error_at is not None:
            await _event(send, {"error": behaviour.error})
        elif behaviour.end_at is not None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        elif options.get("include_usage") and behaviour.tells_usage:
            await _event(send, {**_frame(sent, []), "usage": _usage(sent.usage, behaviour)})
        sent.finished = behaviour.error_at is None
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _roles(sent: Sent, behaviour: Behaviour, send: Send) -> None:
    """Say the role of each choice before its first token, as vLLM does, also before an error."""
    told = {"logprobs": None, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}
    usage = _usage(TokenUsage(sent.prompt_tokens, 0), behaviour)
    for choice in range(sent.body.get("n", 1)):
        await _event(send, {**_frame(sent, [{"index": choice, **told}]), "usage": usage})


async def _tokens(sent: Sent, behaviour: Behaviour, gone: "asyncio.Future[None]") -> AsyncIterator[tuple[int, int]]:
    """Yield (choice, how many tokens it has now) for each token, at the behaviour's pace."""
    for number in range(1, _each(sent, behaviour) + 1):
        for choice in range(sent.body.get("n", 1) * _prompts(sent.body)):
            if behaviour.token_delay_s:
                await asyncio.wait({gone}, timeout=behaviour.token_delay_s)
            else:
                await asyncio.sleep(0)
            if gone.done():
                sent.aborted = True
                return
            if sent.completion_tokens == behaviour.cut_at:
                raise _Cut
            if sent.completion_tokens in (behaviour.error_at, behaviour.end_at):
                return
            if sent.completion_tokens == behaviour.silent_at:
                await asyncio.wait({gone}, timeout=_SILENCE_S)
                sent.aborted = True
                return
            sent.completion_tokens += 1
            yield choice, number


def _each(sent: Sent, behaviour: Behaviour) -> int:
    if is_pooled(sent.body):
        return 0
    return int(min(behaviour.tokens, sent.body.get("max_tokens", behaviour.tokens)))


def _finish_reason(sent: Sent, behaviour: Behaviour) -> str:
    if sent.body.get("max_tokens", behaviour.tokens + 1) <= behaviour.tokens:
        return "length"
    return "tool_calls" if _called(sent, behaviour) else "stop"


def _called(sent: Sent, behaviour: Behaviour) -> tuple[str, str] | None:
    """Return the function that is called, if any, and the arguments."""
    offered = [tool["function"]["name"] for tool in sent.body.get("tools", ())]
    wanted = behaviour.call is not None and behaviour.call[0] in offered and sent.body.get("tool_choice") != "none"
    return behaviour.call if wanted and sent.body["messages"][-1]["role"] != "tool" else None


def _part(text: str, number: int, each: int) -> str:
    """Return the part of `text` that comes with the token of this number, of `each` in all."""
    return text[(number - 1) * len(text) // each : number * len(text) // each]


def _prompts(body: dict[str, Any]) -> int:
    prompt = body.get("prompt")
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


def _prompt_tokens(body: dict[str, Any]) -> int:
    """Count words: a mock's tokenizer."""
    if is_pooled(body):
        return pooled_tokens(body)
    if "messages" in body:
        return sum(len(str(message.get("content")).split()) for message in body["messages"])
    prompt = body["prompt"]
    prompts = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return sum(len(one.split()) if isinstance(one, str) else len(one) for one in prompts)


def _frame(sent: Sent, choices: list[dict[str, Any]]) -> dict[str, Any]:
    chat = "messages" in sent.body
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{sent.claims.attempt}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1_700_000_000,
        "model": sent.body["model"],
        "choices": choices,
    }


def _piece(sent: Sent, behaviour: Behaviour, choice: int, number: int) -> dict[str, Any]:
    each = _each(sent, behaviour)
    text = f"{behaviour.content}{number} " if behaviour.text is None else _part(behaviour.text, number, each)
    finish = _finish_reason(sent, behaviour) if number == each else None
    piece: dict[str, Any] = {"index": choice, "logprobs": None, "finish_reason": finish}
    if "messages" not in sent.body:
        return {**piece, "text": text}
    if called := _called(sent, behaviour):
        delta: dict[str, Any] = {"index": 0, "function": {"arguments": _part(called[1], number, each)}}
        if number == 1:
            delta |= {"id": f"call_{choice}", "type": "function"}
            delta["function"]["name"] = called[0]
        return {**piece, "delta": {"content": None, "tool_calls": [delta]}}
    return {**piece, "delta": {"content": text}}


def _choices(sent: Sent, behaviour: Behaviour) -> list[dict[str, Any]]:
    choices = sent.body.get("n", 1) * _prompts(sent.body)
    text = "".join(f"{behaviour.content}{at + 1} " for at in range(sent.completion_tokens // max(1, choices)))
    text = text if behaviour.text is None else behaviour.text
    finish = {"logprobs": None, "finish_reason": _finish_reason(sent, behaviour)}
    if "messages" in sent.body:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if called := _called(sent, behaviour):
            function = {"name": called[0], "arguments": called[1]}
            message |= {"content": None, "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}
        return [{"index": choice, "message": message, **finish} for choice in range(choices)]
    return [{"index": choice, "text": text, **finish} for choice in range(choices)]


def merged(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content and the tool calls of a whole answer."""
    calls: dict[int, dict[str, Any]] = {}
    for part in (part for delta in deltas for part in delta.get("tool_calls", ())):
        call = calls.setdefault(part["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
        if "id" in part:
            call["id"] = part["id"]
        for name, more in part["function"].items():
            call["function"][name] += more
    content = "".join(delta.get("content") or "" for delta in deltas) or None
    return {"content": content, **({"tool_calls": list(calls.values())} if calls else {})}


def _usage(usage: TokenUsage, behaviour: Behaviour) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if behaviour.cached_tokens:
        told["prompt_tokens_details"] = {"cached_tokens": behaviour.cached_tokens}
    return told


async def _event(send: Send, frame: dict[str, Any]) -> None:
    data = b"data: " + orjson.dumps(frame) + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _reply(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [*_HEADERS_JSON, length, *_encoded(headers)]}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
