"""Reads a request's body once, checks what it costs and whom it is billed to, and hands it on unchanged."""

from typing import NamedTuple

import msgspec
from starlette.types import Receive

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, PermissionDenied
from tokenyard.core.replica import MAX_EMBEDDINGS, MAX_SEQUENCES
from tokenyard.core.usage import MeterClaims

MAX_BODY_BYTES = 64 << 20


class Load(NamedTuple):
    """What a request may bring at the worst. `tokens` are of prompts and answers, `answer_tokens` of answers alone.

    An engine that makes embeddings answers a prompt whole: there these are the tokens of the prompts.
    """

    sequences: int
    tokens: int
    answer_tokens: int


class _BilledFields(msgspec.Struct):
    """What must be known of a body here; everything else in it is the engine's business."""

    model: str = ""
    n: int | None = None
    best_of: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")
    queries: msgspec.Raw = msgspec.Raw(b"null")
    documents: msgspec.Raw = msgspec.Raw(b"null")
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
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


def read_load(body: bytes, claims: MeterClaims, context_length: int, *, generates: bool) -> Load:
    """Return what the request may make the engine do; a token of a prompt is at least one byte of the body.

    Raises:
        InvalidRequest: the body cannot be read, asks for more than `MAX_SEQUENCES` answers or `MAX_EMBEDDINGS`, or for
            an answer in the background.
        PermissionDenied: it names another model than the one that is billed.
    """
    try:
        fields = _DECODER.decode(body)
        prompts = _prompts(fields)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not valid: {error}") from None
    expected = claims.adapter.name if claims.adapter is not None else claims.base_model
    if fields.model != expected:
        raise PermissionDenied("The body names another model than the meter header.", code="meter_invalid")
    if not generates:
        return _load_of_embeddings(len(body), prompts, context_length)
    if fields.background:
        raise InvalidRequest("Background responses are not supported.", param="background")
    choices = max(1, fields.n or 1, fields.best_of or 1)
    sequences = prompts * choices
    if sequences > MAX_SEQUENCES:
        raise InvalidRequest(
            f"{prompts} prompts with {choices} choices each are {sequences} answers: at most {MAX_SEQUENCES} in one "
            "request. Send several requests.",
            param="n" if choices > 1 else "prompt",
        )
    answer_tokens = sequences * min(_longest_answer(fields, context_length), context_length)
    return Load(sequences, min(len(body), prompts * context_length) + answer_tokens, answer_tokens)


def _load_of_embeddings(size: int, prompts: int, context_length: int) -> Load:
    if prompts > MAX_EMBEDDINGS:
        raise InvalidRequest(f"{prompts} texts: at most {MAX_EMBEDDINGS} in one request. Send several requests.")
    # Of what the body holds a token is one byte at least, and a text has a few more than its own.
    tokens = min(size, prompts * context_length)
    return Load(prompts, tokens, tokens)


def _prompts(fields: _BilledFields) -> int:
    texts = [one for one in (fields.queries, fields.documents) if _first(one) != b"n"]
    return sum(map(_count, texts)) if texts else max(_count(fields.prompt), _count(fields.input))


def _longest_answer(fields: _BilledFields, context_length: int) -> int:
    for said in (fields.max_completion_tokens, fields.max_tokens, fields.max_output_tokens):
        if said is not None:
            return max(0, said)
    return context_length


def _count(prompts: msgspec.Raw) -> int:
    """Return how many prompts these are; one may be a text, a list of token ids, or a list of messages."""
    if _first(prompts) != b"[":
        return 1
    several = msgspec.json.decode(prompts, type=list[msgspec.Raw])
    return len(several) if several and _first(several[0]) in {b'"', b"["} else 1


def _first(value: msgspec.Raw) -> bytes:
    return bytes(memoryview(value)[:1])
