"""Answers of a replica that are not the engine's, in the shape of OpenAI's errors."""

import msgspec
from starlette.types import Send

from tokenyard.core.errors import TokenyardError


async def send_json(send: Send, status: int, content: object, headers: dict[str, str] | None = None) -> None:
    """Send a whole JSON response."""
    body = msgspec.json.encode(content)
    lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: TokenyardError) -> None:
    """Send `error` as a whole response."""
    content = {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    await send_json(send, error.status, content, error.headers)
