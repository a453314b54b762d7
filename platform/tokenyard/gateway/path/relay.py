"""Stage 5: carries a request to a replica, and to a second one where the first fails before the client has anything.

Where a server elsewhere answers for the model, or stands in for its replicas, the request goes there.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tokenyard.core.errors import ModelFailed, TimedOut, TokenyardError, Unavailable, UpstreamFailed
from tokenyard.core.replica import (
    ConnectionStale,
    Replica,
    ReplicaLost,
    ReplicaUnreachable,
    ReplyLimits,
    ReplyOverdue,
)
from tokenyard.gateway.elsewhere.server_relay import ServerRelay, stand_in
from tokenyard.gateway.path.client import ClientConnection
from tokenyard.gateway.path.replies import refuse, relay_stream, relay_whole
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.route import MAX_ATTEMPTS, ReplicaRouter, Route, RoutedRequest, no_replica
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.path.upstream_errors import AttemptFailed, lost, model_failed, overdue
from tokenyard.gateway.ports import ModelServer, ReplicaReply, Replicas
from tokenyard.gateway.routing.prefixes import BYTES_PER_TOKEN
from tokenyard.metering import header as meter

_LOG = logging.getLogger(__name__)


class _Outgoing(NamedTuple):
    """What each attempt sends, and how long all of them may take."""

    path: str
    body: bytes
    limits: ReplyLimits


class Relay:
    """`meter_secret` signs the meter header; `salt_secret` keeps organizations' prefix caches apart.

    `elsewhere` serves the models that are not ours, and is needed only where there are any.
    """

    def __init__(
        self,
        server: ModelServer,
        replicas: Replicas,
        *,
        meter_secret: bytes,
        salt_secret: bytes,
        elsewhere: ServerRelay | None = None,
    ) -> None:
        self._server = server
        self._elsewhere = elsewhere
        self._router = ReplicaRouter(replicas)
        self._meter_secret = meter_secret
        self._salt_secret = salt_secret

    @property
    def waiting(self) -> int:
        """How many requests wait for a model to wake up."""
        return self._router.waiting

    async def run(self, request: ResolvedRequest, client: ClientConnection, settlement: RequestSettlement) -> None:
        """Serve the request, writing into `settlement` what was relayed.

        Raises:
            TokenyardError: nothing was sent to the client yet, and no replica can do it.
            ClientLeft: the client is gone.
        """
        limits = _limits(request)
        if request.model.base.server is not None:
            assert self._elsewhere is not None
            return await self._elsewhere.run(request, limits, client, settlement)
        try:
            await self._to_replicas(request, limits, client, settlement)
        except (Unavailable, UpstreamFailed) as failure:  # no replica can be had: not the request's fault
            other = None if _is_over(limits) else stand_in(request)
            if other is None or self._elsewhere is None:
                raise
            try:
                await self._elsewhere.run(other, _limits(other, limits.deadline), client, settlement)
            except TokenyardError as error:
                raise failure from error

    async def _to_replicas(
        self, request: ResolvedRequest, limits: ReplyLimits, client: ClientConnection, settlement: RequestSettlement
    ) -> None:
        salt = meter.cache_salt(settlement.claims.organization, self._salt_secret)
        outgoing = _Outgoing(request.endpoint.upstream, _body(request, salt), limits)
        routed = _routed(request, outgoing.body, salt)
        tried: list[str] = []
        failure: TokenyardError | None = None
        answered = False
        while len(tried) < MAX_ATTEMPTS:
            route = self._router.pick(routed, tried)
            if route is None and not answered:
                route = await self._woken(request, routed, tried)
                outgoing = outgoing._replace(limits=_limits(request))
            if route is None:
                break
            replica = route.replica
            tried.append(replica.name)
            try:
                with route:
                    await self._attempt(request, outgoing, route, client, settlement)
                return
            except AttemptFailed as attempt:
                failure = _told(attempt.error, failure, outgoing.limits)
                settlement.telemetry.upstream_failed(failure)
                why = attempt.__cause__ or failure.code
                _LOG.warning("attempt %s failed on %s: %s", settlement.claims.attempt, replica.name, why)
                answered = not attempt.lost
                if attempt.lost:
                    self._router.eject(replica)
                if _is_over(outgoing.limits):
                    break
        raise failure or no_replica(request.body.model)

    async def _woken(self, request: ResolvedRequest, routed: RoutedRequest, tried: Sequence[str]) -> Route | None:
        """Wake the model where it sleeps, and wait for its replica unless a server elsewhere stands in meanwhile."""
        if self._elsewhere is not None and stand_in(request) is not None:
            self._router.wake(routed)
            return None
        return await self._router.woken(routed, tried)

    async def _attempt(
        self,
        request: ResolvedRequest,
        outgoing: _Outgoing,
        route: Route,
        client: ClientConnection,
        settlement: RequestSettlement,
    ) -> None:
        reply = await self._asked(outgoing, route.replica, settlement)
        route.began(reply.load)
        try:
            if reply.status != 200:
                await refuse(reply, request.endpoint.input)
            relay = relay_stream if request.body.stream else relay_whole
            if not await relay(request, reply, client, settlement):
                self._router.eject(route.replica)
        finally:
            reply.close()
            route.made(settlement.usage.completion_tokens)

    async def _asked(self, outgoing: _Outgoing, replica: Replica, settlement: RequestSettlement) -> ReplicaReply:
        url, body, limits = replica.url + outgoing.path, outgoing.body, outgoing.limits
        try:
            try:
                return await self._server.post(url, body, self._next_headers(settlement), limits)
            except ConnectionStale:
                # It may have arrived all the same, and be reported: what is sent now is another attempt.
                return await self._server.post(url, body, self._next_headers(settlement), limits)
        except ReplicaLost as error:
            gone = isinstance(error, ReplicaUnreachable)
            raise AttemptFailed(no_replica(settlement.claims.model) if gone else lost(), lost=True) from error
        except ReplyOverdue as error:
            raise AttemptFailed(overdue()) from error

    def _next_headers(self, settlement: RequestSettlement) -> dict[str, str]:
        settlement.begin_attempt()
        claims = settlement.claims
        return {"x-request-id": claims.attempt, meter.HEADER: meter.sign(claims, self._meter_secret)}


def _body(request: ResolvedRequest, salt: str) -> bytes:
    sent = request.body.sent(request.model.base, request.max_tokens)
    return msgspec.json.encode(sent | {"model": request.model.name, "cache_salt": salt})


def _routed(request: ResolvedRequest, body: bytes, salt: str) -> RoutedRequest:
    adapter, tokens = request.model.adapter, request.prompt_tokens
    return RoutedRequest(
        organization=request.organization,
        salt=salt,
        base_model=request.model.base.id,
        adapter=None if adapter is None else adapter.name,
        body=body,
        sequences=len(request.prompts) * max(1, request.body.choices),
        prompt_tokens=tokens if request.exact else tokens // BYTES_PER_TOKEN,
        waking=request.model.base.waking,
        cache_key=request.body.cache_key,
    )


def _limits(request: ResolvedRequest, deadline: float = math.inf) -> ReplyLimits:
    base = request.model.base
    # A whole answer is silent until it is there.
    silence_s = base.max_silence_s if request.body.stream else base.max_request_s
    return ReplyLimits(silence_s, min(deadline, asyncio.get_running_loop().time() + base.max_request_s))


def _is_over(limits: ReplyLimits) -> bool:
    return asyncio.get_running_loop().time() >= limits.deadline


def _told(error: TokenyardError, earlier: TokenyardError | None, limits: ReplyLimits) -> TokenyardError:
    """Return what to say of a failure after an earlier one: what fails twice is not to be tried a third time."""
    if isinstance(error, ModelFailed) and isinstance(earlier, ModelFailed):
        return model_failed(certain=True)
    if isinstance(error, TimedOut) and _is_over(limits):
        return overdue(certain=True)
    return error
