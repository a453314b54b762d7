"""Carries one replica's answer to the client, counting tokens as they pass."""

import logging
from typing import NoReturn

import msgspec

from tokenyard.core.errors import ContextLengthExceeded, InvalidRequest, TokenyardError
from tokenyard.core.ids import request_of
from tokenyard.core.replica import ReplicaLost, ReplyOverdue
from tokenyard.gateway.endpoints.answer import Answer, FrameTooLong
from tokenyard.gateway.endpoints.body import AnswerHead
from tokenyard.gateway.endpoints.usage import USAGE_AT_END_BYTES, read_usage_at_end
from tokenyard.gateway.path.client import ClientConnection, Headers
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.path.upstream_errors import (
    AttemptFailed,
    frame_error,
    lost,
    model_failed,
    overdue,
    says_engine_dead,
    upstream_error,
)
from tokenyard.gateway.ports import Reply
from tokenyard.metering.events import Outcome

MAX_HELD_BYTES = 256 * 1024
"""A whole reply up to this size is sent once it is there and right; a longer one is passed on as it comes."""
MAX_TRANSLATED_BYTES = 32 * 1024 * 1024
"""What is translated has to be there in whole."""
MAX_ERROR_BYTES = 64 * 1024

_LOG = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def relay_stream(
    request: ResolvedRequest, reply: Reply, client: ClientConnection, settlement: RequestSettlement
) -> bool:
    """Relay a stream to its end, or to an error as its last event; return whether the replica is still there.

    Raises:
        AttemptFailed, InvalidRequest: nothing was sent to the client yet.
    """
    answer = answer_to(request, settlement)
    try:
        error = await _frames(reply, answer, client, settlement)
    except (ReplicaLost, ReplyOverdue, FrameTooLong) as failure:
        gone = isinstance(failure, ReplicaLost)
        error = lost() if gone else overdue() if isinstance(failure, ReplyOverdue) else model_failed()
        if not client.started:
            raise AttemptFailed(error, lost=gone) from failure
        _LOG.warning("attempt %s failed in its stream: %s", settlement.claims.attempt, failure)
        await _end_with(answer, error, client, settlement)
        return not gone
    if error is None:
        return True
    if not client.started:
        raise error if isinstance(error, InvalidRequest) else AttemptFailed(error)
    await _end_with(answer, error, client, settlement)
    return True


def answer_to(request: ResolvedRequest, settlement: RequestSettlement) -> Answer:
    """Return what reads the replica's answer and gives the client's."""
    claims = settlement.claims
    head = AnswerHead(request_of(claims.attempt), request.model.name, claims.admitted_at_ms // 1000)
    settlement.answer = request.body.answer(head)
    return settlement.answer


async def _frames(
    reply: Reply, answer: Answer, client: ClientConnection, settlement: RequestSettlement
) -> TokenyardError | None:
    """Relay events; return what the stream says went wrong, if anything."""
    telemetry, held = settlement.telemetry, b""
    try:
        while data := await reply.chunk():
            sent = answer.feed(data)
            if not sent:
                if answer.error is not None:
                    break
                continue
            if not client.started:
                # vLLM tells the roles also before an error; held back, it is still one that is answered as such.
                held += sent
                if not answer.begun and len(held) <= MAX_HELD_BYTES:
                    continue
                sent = held
                # From here on the client has something, and whatever happens it costs what was relayed.
                settlement.outcome = Outcome.REPLICA_LOST
                await client.start(200, telemetry.headers(EVENTS))
            telemetry.received()
            if answer.done:
                settlement.outcome = Outcome.COMPLETED
                settlement.usage = answer.usage
                await settlement.keep(answer)
                await client.finish(sent)
                return None
            await client.write(sent)
    finally:
        if client.started:
            settlement.usage = answer.usage
    if answer.error is not None:
        return frame_error(answer.error)
    if not answer.complete or not client.started:
        return model_failed()
    settlement.outcome = Outcome.COMPLETED
    ending = answer.ending()
    await settlement.keep(answer)
    await client.finish(ending)
    return None


async def _end_with(
    answer: Answer, error: TokenyardError, client: ClientConnection, settlement: RequestSettlement
) -> None:
    settlement.telemetry.upstream_failed(error)
    event = answer.failed(error)
    await settlement.keep(answer)
    await client.finish(event)


async def relay_whole(
    request: ResolvedRequest, reply: Reply, client: ClientConnection, settlement: RequestSettlement
) -> bool:
    """Relay a whole answer; return whether the replica is still there.

    Raises:
        AttemptFailed: nothing was sent to the client yet.
    """
    answer = answer_to(request, settlement)
    held = MAX_TRANSLATED_BYTES if answer.translated else MAX_HELD_BYTES
    try:
        body = await reply.beginning(held)
    except ReplicaLost as error:
        raise AttemptFailed(lost(), lost=True) from error
    except ReplyOverdue as error:
        raise AttemptFailed(overdue()) from error
    if len(body) > held:
        if answer.translated:
            raise AttemptFailed(model_failed())
        return await _relay_in_pieces(body, reply, client, settlement)
    try:
        body = answer.whole(body)
    except msgspec.MsgspecError as error:
        raise AttemptFailed(model_failed()) from error
    settlement.usage = answer.usage
    settlement.outcome = Outcome.COMPLETED
    await settlement.keep(answer)
    length = (b"content-length", str(len(body)).encode())
    await client.start(200, settlement.telemetry.headers([_JSON, length]))
    await client.finish(body)
    return True


async def _relay_in_pieces(held: bytes, reply: Reply, client: ClientConnection, settlement: RequestSettlement) -> bool:
    """Relay a reply that is too long to be held; its end, with the usage, goes last, when it is known what it costs."""
    settlement.outcome = Outcome.REPLICA_LOST
    length = [] if reply.length is None else [(b"content-length", str(reply.length).encode())]
    await client.start(200, settlement.telemetry.headers([_JSON, *length]))
    try:
        while more := await reply.chunk():
            await client.write(held[:-USAGE_AT_END_BYTES])
            held = held[-USAGE_AT_END_BYTES:] + more
        settlement.usage = read_usage_at_end(held[-USAGE_AT_END_BYTES:])
    except (ReplicaLost, ReplyOverdue, ValueError) as failure:
        # A client that was promised more sees the connection cut, and so that its answer is not whole.
        _LOG.warning("attempt %s failed in its reply: %s", settlement.claims.attempt, failure)
        gone = isinstance(failure, ReplicaLost)
        if not gone:
            # Nearly all of it may have been relayed, if only slowly taken, and the replica alone knows what it cost.
            settlement.outcome = Outcome.CLIENT_LEFT
        settlement.telemetry.upstream_failed(lost() if gone else model_failed())
        return not gone
    settlement.outcome = Outcome.COMPLETED
    await client.finish(held)
    return True


async def refuse(reply: Reply, prompt: str) -> NoReturn:
    """Raise what another status than 200 means: the request is wrong, the model failed or is busy, or it is gone.

    `prompt` is the field to name where the engine finds too many tokens.
    """
    try:
        body = await reply.beginning(MAX_ERROR_BYTES)
    except (ReplicaLost, ReplyOverdue):
        body = b""
    if says_engine_dead(reply.status, body):
        raise AttemptFailed(lost(), lost=True)
    error = upstream_error(reply.status, body, reply.retry_after_s)
    if isinstance(error, ContextLengthExceeded):
        error.param = prompt
    if isinstance(error, InvalidRequest):
        raise error
    raise AttemptFailed(error)
