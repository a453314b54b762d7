"""Stage 5: carries a request to a replica and its answer back, counting tokens as they pass."""

import logging
from typing import NoReturn

import msgspec
import orjson

from tokenyard.core.errors import InvalidRequest, TokenyardError, UpstreamFailed, error_body
from tokenyard.core.replica import Replica, ReplicaLost
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.call import Call
from tokenyard.gateway.endpoints.sse import DONE, FrameTooLong, UsageScanner, usage_of
from tokenyard.gateway.endpoints.stream_options import ALWAYS_ASKED
from tokenyard.gateway.path.client import Client, Headers
from tokenyard.gateway.path.resolve import Order
from tokenyard.gateway.path.route import MAX_ATTEMPTS, Router, no_replica
from tokenyard.gateway.path.settle import Settlement
from tokenyard.gateway.path.upstream_errors import failed, upstream_error
from tokenyard.gateway.ports import ModelServer, Reply
from tokenyard.metering import header as meter
from tokenyard.metering.events import Outcome

MAX_REPLY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024

_LOG = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class _Failed(Exception):
    """This attempt failed before the client was sent anything; `error` is what to say if no other one helps."""

    def __init__(self, error: TokenyardError, *, eject: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.eject = eject


class Relay:
    """`meter_secret` signs the meter header; `salt_secret` keeps organizations' prefix caches apart."""

    def __init__(self, server: ModelServer, router: Router, *, meter_secret: bytes, salt_secret: bytes) -> None:
        self._server = server
        self._router = router
        self._meter_secret = meter_secret
        self._salt_secret = salt_secret

    async def run(self, order: Order, client: Client, settlement: Settlement) -> None:
        """Serve the request, writing into `settlement` what was relayed.

        Raises:
            TokenyardError: nothing was sent to the client yet, and no replica can do it.
            ClientLeft: the client is gone.
        """
        body = self._body(order, settlement.claims.organization)
        tried: list[str] = []
        failure: TokenyardError = no_replica(order.call.model)
        for number in range(1, MAX_ATTEMPTS + 1):
            replica = self._router.pick(settlement.claims, tried)
            if replica is None:
                break
            tried.append(replica.name)
            settlement.begin_attempt(number)
            try:
                with self._router.using(replica):
                    await self._attempt(order, body, replica, client, settlement)
                return
            except _Failed as attempt:
                failure = attempt.error
                settlement.exchange.upstream_failed(failure)
                _LOG.warning("attempt %s failed on %s: %s", settlement.claims.attempt, replica.name, _why(attempt))
                if attempt.eject:
                    self._router.eject(replica)
        raise failure

    def _body(self, order: Order, organization: str) -> bytes:
        body = {
            **order.call.body,
            "model": order.model.name,
            "max_tokens": order.max_tokens,
            "cache_salt": meter.cache_salt(organization, self._salt_secret),
        }
        if order.call.stream:
            body["stream"] = True
            body["stream_options"] = ALWAYS_ASKED
        return orjson.dumps(body)

    async def _attempt(
        self, order: Order, body: bytes, replica: Replica, client: Client, settlement: Settlement
    ) -> None:
        claims = settlement.claims
        headers = {"x-request-id": claims.attempt, meter.HEADER: meter.sign(claims, self._meter_secret)}
        try:
            reply = await self._server.post(replica.url + order.call.endpoint.path, body, headers)
        except ReplicaLost as lost:
            raise _Failed(failed(), eject=True) from lost
        try:
            if reply.status != 200:
                await _refuse(reply)
            if not order.call.stream:
                await _whole(reply, client, settlement)
            elif not await _stream(order.call, reply, client, settlement):
                self._router.eject(replica)
        finally:
            reply.close()


def _why(failure: _Failed) -> str:
    return str(failure.__cause__ or failure.error.code)


async def _stream(call: Call, reply: Reply, client: Client, settlement: Settlement) -> bool:
    """Relay a stream; return whether the replica brought it to its end."""
    scanner = UsageScanner(include_usage=call.include_usage, choices_per_prompt=call.choices)
    try:
        await _frames(reply, scanner, client, settlement)
    except (ReplicaLost, FrameTooLong) as lost:
        error = failed()
        if not client.started:
            raise _Failed(error, eject=True) from lost
        settlement.exchange.upstream_failed(error)
        _LOG.warning("attempt %s was lost in its stream: %s", settlement.claims.attempt, lost)
        await client.finish(b"data: " + error_body(error) + b"\n\n")
        return False
    return True


async def _frames(reply: Reply, scanner: UsageScanner, client: Client, settlement: Settlement) -> None:
    exchange = settlement.exchange
    try:
        while data := await reply.chunk():
            sent = scanner.feed(data)
            if not sent:
                continue
            exchange.frames()
            if not client.started:
                # From here on the client has something, and whatever happens it costs what was relayed.
                settlement.outcome = Outcome.REPLICA_LOST
                await client.start(200, exchange.headers(_EVENTS))
            if scanner.done:
                settlement.outcome = Outcome.COMPLETED
                settlement.usage = scanner.usage
                await client.finish(sent)
                return
            await client.write(sent)
    finally:
        settlement.usage = scanner.usage
    if scanner.failed or not scanner.complete:
        raise ReplicaLost("the stream ended before its end")
    settlement.outcome = Outcome.COMPLETED
    await client.finish(DONE)


class _Usage(msgspec.Struct):
    usage: dict[str, object] | None = None


_USAGE = msgspec.json.Decoder(_Usage)


async def _whole(reply: Reply, client: Client, settlement: Settlement) -> None:
    exchange = settlement.exchange
    try:
        body = await reply.body(MAX_REPLY_BYTES)
        usage = _usage_in(body)
    except (ReplicaLost, msgspec.MsgspecError) as lost:
        raise _Failed(failed(), eject=True) from lost
    settlement.usage = usage
    settlement.outcome = Outcome.COMPLETED
    exchange.frames()
    length = (b"content-length", str(len(body)).encode())
    await client.start(200, exchange.headers([_JSON, length]))
    await client.finish(body)


def _usage_in(body: bytes) -> TokenUsage:
    usage = _USAGE.decode(body).usage
    if usage is None:
        raise ReplicaLost("the reply tells no usage")
    return usage_of(usage)


async def _refuse(reply: Reply) -> NoReturn:
    """Raise what the replica's refusal means: this request is wrong, the replica is busy, or it is broken."""
    try:
        body = await reply.body(MAX_ERROR_BYTES)
    except ReplicaLost:
        body = b""
    error = upstream_error(reply.status, body, reply.retry_after_s)
    if isinstance(error, InvalidRequest):
        raise error
    raise _Failed(error, eject=isinstance(error, UpstreamFailed))
