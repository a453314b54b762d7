"""Stage 5: carries a request to a replica and its answer back, counting tokens as they pass."""

import logging
from typing import NoReturn

import msgspec

from tokenyard.core.errors import InvalidRequest, TokenyardError, UpstreamFailed, error_body
from tokenyard.core.replica import Replica, ReplicaLost
from tokenyard.gateway.endpoints.usage import DONE, FrameTooLong, StreamUsage
from tokenyard.gateway.path.client import ClientConnection, Headers
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.route import MAX_ATTEMPTS, ReplicaRouter, no_replica
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.path.upstream_errors import failed, upstream_error
from tokenyard.gateway.ports import ModelServer, Replicas, Reply
from tokenyard.metering import header as meter
from tokenyard.metering.events import Outcome

MAX_REPLY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
# Of every stream, so that what passed is known exactly at any moment.
ALWAYS_ASKED = {"include_usage": True, "continuous_usage_stats": True}

_LOG = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class _AttemptFailed(Exception):
    """This attempt failed before the client was sent anything; `error` is what to say if no other one helps."""

    def __init__(self, error: TokenyardError, *, eject: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.eject = eject


class Relay:
    """`meter_secret` signs the meter header; `salt_secret` keeps organizations' prefix caches apart."""

    def __init__(self, server: ModelServer, replicas: Replicas, *, meter_secret: bytes, salt_secret: bytes) -> None:
        self._server = server
        self._router = ReplicaRouter(replicas)
        self._meter_secret = meter_secret
        self._salt_secret = salt_secret

    async def run(self, request: ResolvedRequest, client: ClientConnection, settlement: RequestSettlement) -> None:
        """Serve the request, writing into `settlement` what was relayed.

        Raises:
            TokenyardError: nothing was sent to the client yet, and no replica can do it.
            ClientLeft: the client is gone.
        """
        body = self._body(request, settlement.claims.organization)
        tried: list[str] = []
        failure: TokenyardError = no_replica(request.body.model)
        for number in range(1, MAX_ATTEMPTS + 1):
            replica = self._router.pick(settlement.claims, tried)
            if replica is None:
                break
            tried.append(replica.name)
            settlement.begin_attempt(number)
            try:
                with self._router.using(replica):
                    await self._attempt(request, body, replica, client, settlement)
                return
            except _AttemptFailed as attempt:
                failure = attempt.error
                settlement.telemetry.upstream_failed(failure)
                why = attempt.__cause__ or failure.code
                _LOG.warning("attempt %s failed on %s: %s", settlement.claims.attempt, replica.name, why)
                if attempt.eject:
                    self._router.eject(replica)
        raise failure

    def _body(self, request: ResolvedRequest, organization: str) -> bytes:
        body = {
            # What the client says nothing of is sampled as the model's file says.
            **msgspec.to_builtins(request.model.base.sampling),
            **request.body.sent(),
            "model": request.model.name,
            "max_tokens": request.max_tokens,
            "cache_salt": meter.cache_salt(organization, self._salt_secret),
        }
        if request.body.stream:
            body["stream"] = True
            body["stream_options"] = ALWAYS_ASKED
        return msgspec.json.encode(body)

    async def _attempt(
        self,
        request: ResolvedRequest,
        body: bytes,
        replica: Replica,
        client: ClientConnection,
        settlement: RequestSettlement,
    ) -> None:
        claims = settlement.claims
        headers = {"x-request-id": claims.attempt, meter.HEADER: meter.sign(claims, self._meter_secret)}
        try:
            reply = await self._server.post(replica.url + request.endpoint.path, body, headers)
        except ReplicaLost as lost:
            raise _AttemptFailed(failed(), eject=True) from lost
        try:
            if reply.status != 200:
                await _refuse(reply)
            if not request.body.stream:
                await _whole(request, reply, client, settlement)
            elif not await _stream(request, reply, client, settlement):
                self._router.eject(replica)
        finally:
            reply.close()


async def _stream(
    request: ResolvedRequest, reply: Reply, client: ClientConnection, settlement: RequestSettlement
) -> bool:
    """Relay a stream; return whether the replica brought it to its end."""
    body = request.body
    stream = request.endpoint.stream_usage(include_usage=body.include_usage, choices_per_prompt=body.choices)
    try:
        await _frames(reply, stream, client, settlement)
    except (ReplicaLost, FrameTooLong) as lost:
        error = failed()
        if not client.started:
            raise _AttemptFailed(error, eject=True) from lost
        settlement.telemetry.upstream_failed(error)
        _LOG.warning("attempt %s was lost in its stream: %s", settlement.claims.attempt, lost)
        await client.finish(b"data: " + error_body(error) + b"\n\n")
        return False
    return True


async def _frames(reply: Reply, stream: StreamUsage, client: ClientConnection, settlement: RequestSettlement) -> None:
    telemetry = settlement.telemetry
    try:
        while data := await reply.chunk():
            sent = stream.feed(data)
            if not sent:
                continue
            telemetry.received()
            if not client.started:
                # From here on the client has something, and whatever happens it costs what was relayed.
                settlement.outcome = Outcome.REPLICA_LOST
                await client.start(200, telemetry.headers(_EVENTS))
            if stream.done:
                settlement.outcome = Outcome.COMPLETED
                settlement.usage = stream.usage
                await client.finish(sent)
                return
            await client.write(sent)
    finally:
        settlement.usage = stream.usage
    if stream.failed or not stream.complete:
        raise ReplicaLost("the stream ended before its end")
    settlement.outcome = Outcome.COMPLETED
    await client.finish(DONE)


async def _whole(
    request: ResolvedRequest, reply: Reply, client: ClientConnection, settlement: RequestSettlement
) -> None:
    telemetry = settlement.telemetry
    try:
        body = await reply.body(MAX_REPLY_BYTES)
        usage = request.endpoint.read_usage(body)
    except (ReplicaLost, msgspec.MsgspecError) as lost:
        raise _AttemptFailed(failed(), eject=True) from lost
    settlement.usage = usage
    settlement.outcome = Outcome.COMPLETED
    telemetry.received()
    length = (b"content-length", str(len(body)).encode())
    await client.start(200, telemetry.headers([_JSON, length]))
    await client.finish(body)


async def _refuse(reply: Reply) -> NoReturn:
    """Raise what the replica's refusal means: this request is wrong, the replica is busy, or it is broken."""
    try:
        body = await reply.body(MAX_ERROR_BYTES)
    except ReplicaLost:
        body = b""
    error = upstream_error(reply.status, body, reply.retry_after_s)
    if isinstance(error, InvalidRequest):
        raise error
    raise _AttemptFailed(error, eject=isinstance(error, UpstreamFailed))
