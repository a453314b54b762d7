"""Reads a request's body once, checks what it costs and whom it is billed to, and hands it on unchanged."""

import msgspec
from starlette.types import Message, Receive

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, PermissionDenied
from tokenyard.core.usage import MeterClaims

MAX_BODY_BYTES = 64 << 20


class _BilledFields(msgspec.Struct):
    """What must be known of a body here; everything else in it is the engine's business."""

    model: str = ""
    n: int | None = None
    best_of: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    background: bool | None = None


_DECODER = msgspec.json.Decoder(_BilledFields)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        InvalidRequest: the client left before its end.
        PayloadTooLarge: it is over `MAX_BODY_BYTES`.
    """
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The request was not sent to its end.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"The body is over {MAX_BODY_BYTES >> 20} MiB.")
        if not message.get("more_body", False):
            return b"".join(chunks)


def replay(body: bytes, receive: Receive) -> Receive:
    """Give the body again, then whatever comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def count_sequences(body: bytes, claims: MeterClaims) -> int:
    """Return how many sequences the request makes the engine run.

    Raises:
        InvalidRequest: the body cannot be read, or asks for a response in the background.
        PermissionDenied: it names another model than the one that is billed.
    """
    try:
        fields = _DECODER.decode(body)
        prompts = msgspec.json.decode(fields.prompt)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not valid: {error}") from None
    expected = claims.adapter.name if claims.adapter is not None else claims.base_model
    if fields.model != expected:
        raise PermissionDenied("The body names another model than the meter header.", code="meter_invalid")
    if fields.background:
        raise InvalidRequest("Background responses are not supported.", param="background")
    many = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
    return (len(prompts) if many else 1) * max(fields.n or 1, fields.best_of or 1)
