"""A model server that says what a test wrote down, as a stream or in whole, with the usage of one token an entry."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

Delta = dict[str, Any]
PROMPT_TOKENS = 7
LOGPROBS = "logprobs"
"""The entry of a delta that belongs beside it."""


def said(text: str, *, logprob: float | None = None) -> Delta:
    """Return more of a text; `logprob` is that of its one token."""
    if logprob is None:
        return {"content": text}
    token = {"token": text, "logprob": logprob, "bytes": None}
    return {"content": text, LOGPROBS: [{**token, "top_logprobs": [token]}]}


def called(index: int, *, name: str = "", arguments: str = "", call: str = "") -> Delta:
    """Return more of a tool call; `name` and `call`, its id, come with its first delta."""
    function = ({"name": name} if name else {}) | {"arguments": arguments}
    head = {"id": call, "type": "function"} if call else {}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


class ScriptedServer:
    """A bare ASGI application. `asked` are the bodies it was sent; `reasoning_tokens` are part of what it tells."""

    def __init__(self, script: Sequence[Delta], *, finish_reason: str = "stop", reasoning_tokens: int = 0) -> None:
        self.script = script
        self.finish_reason = finish_reason
        self.reasoning_tokens = reasoning_tokens
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        body = orjson.loads(raw)
        self.asked.append(body)
        stream = body.get("stream", False)
        data = self.events(body["model"]) if stream else orjson.dumps(self.whole(body["model"]))
        kind = b"text/event-stream" if stream else b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def events(self, model: str = "test-model") -> bytes:
        """Return all that a stream says."""
        frames = [self._frame(model, {"role": "assistant", "content": ""}, None, 0)]
        for number, delta in enumerate(self.script, 1):
            finish = self.finish_reason if number == len(self.script) else None
            frames.append(self._frame(model, delta, finish, number))
        frames.append({**_head(model, "chat.completion.chunk"), "choices": [], "usage": self._usage(len(self.script))})
        return b"".join(b"data: " + orjson.dumps(frame) + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"

    def _frame(self, model: str, delta: Delta, finish: str | None, tokens: int) -> dict[str, Any]:
        logprobs = _logprobs([delta])
        told = {name: value for name, value in delta.items() if name != LOGPROBS}
        choice = {"index": 0, "delta": told, "logprobs": logprobs, "finish_reason": finish}
        return {**_head(model, "chat.completion.chunk"), "choices": [choice], "usage": self._usage(tokens)}

    def whole(self, model: str) -> dict[str, Any]:
        text, calls = "", dict[int, dict[str, Any]]()
        for delta in self.script:
            text += delta.get("content", "")
            for more in delta.get("tool_calls", ()):
                call = calls.setdefault(more["index"], {"type": "function", "function": {"arguments": ""}})
                call |= {"id": more["id"]} if "id" in more else {}
                arguments = call["function"]["arguments"] + more["function"].get("arguments", "")
                call["function"] |= more["function"] | {"arguments": arguments}
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = list(calls.values())
        logprobs = _logprobs(self.script)
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": self.finish_reason}
        return {**_head(model, "chat.completion"), "choices": [choice], "usage": self._usage(len(self.script))}

    def _usage(self, tokens: int) -> dict[str, Any]:
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
        details = {"completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens}}
        return usage | {"prompt_tokens_details": {"cached_tokens": 2}} | details


def _logprobs(deltas: Sequence[Delta]) -> dict[str, Any] | None:
    told = [token for delta in deltas for token in delta.get(LOGPROBS, ())]
    return {"content": told, "refusal": None} if told else None


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1_700_000_000, "model": model}
