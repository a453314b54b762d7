"""Carries a request to a server elsewhere: for a model sold under its own name, or in the place of one of ours."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from tokenyard.core.errors import InvalidRequest, Unavailable
from tokenyard.core.ids import request_of
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import BaseModel
from tokenyard.core.replica import ConnectionStale, ReplicaLost, ReplicaUnreachable, ReplyLimits, ReplyOverdue
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.elsewhere.answer_count import BYTES_A_TOKEN, AnswerCount, CountBounds
from tokenyard.gateway.elsewhere.answer_shape import AnswerShape
from tokenyard.gateway.elsewhere.back_off import BackOff
from tokenyard.gateway.elsewhere.errors import private_words
from tokenyard.gateway.elsewhere.reply import ServerReply
from tokenyard.gateway.elsewhere.taken import CHAT, body_elsewhere, check_taken, hashed_end_user
from tokenyard.gateway.path.client import ClientConnection
from tokenyard.gateway.path.replies import refuse, relay_stream, relay_whole
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.route import no_replica
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.path.upstream_errors import AttemptFailed, lost, overdue
from tokenyard.gateway.ports import Reply, ServerElsewhere

_LOG = logging.getLogger(__name__)


class ServerRelay:
    """`keys` are the servers' secrets by model, of which one may have none; `user_secret` hashes end users."""

    def __init__(self, client: ServerElsewhere, keys: Mapping[str, str], *, user_secret: bytes) -> None:
        self._client = client
        self._keys = keys
        self._user_secret = user_secret
        self._back_off = BackOff()

    async def any_answers(self) -> bool:
        """Tell whether one of the servers may be asked."""
        return any(not self._back_off.wait_s(model) for model in self._keys)

    async def run(
        self, request: ResolvedRequest, limits: ReplyLimits, client: ClientConnection, settlement: RequestSettlement
    ) -> None:
        """Serve the request by the server of its base model, writing into `settlement` what was relayed.

        Raises:
            TokenyardError: nothing was sent to the client yet, and the server cannot do it.
            ClientLeft: the client is gone.
        """
        base, server = request.model.base, request.model.base.server
        assert server is not None
        wait_s = self._back_off.wait_s(base.id)
        if wait_s > 0:
            raise Unavailable(no_replica(request.body.model).message, retry_after_s=wait_s)
        try:
            await self._attempt(request, server, limits, client, settlement)
        except AttemptFailed as attempt:
            settlement.telemetry.upstream_failed(attempt.error)
            why = attempt.__cause__ or attempt.error.code
            _LOG.warning("attempt %s failed at the server of %s: %s", settlement.claims.attempt, base.id, why)
            raise attempt.error from attempt

    async def _attempt(
        self,
        request: ResolvedRequest,
        server: ServerSource,
        limits: ReplyLimits,
        client: ClientConnection,
        settlement: RequestSettlement,
    ) -> None:
        model, bounds = request.model.base.id, _bounds(request)
        heard: list[None] = []
        try:
            answer = await self._asked(request, server, limits, settlement, lambda: heard.append(None))
            count = AnswerCount(bounds)
            shape = _shape(request, settlement)
            reply = ServerReply(answer, shape, count, private_words(server), tells_of_choice=server.vllm)
            try:
                self._heed(model, answer.status, reply)
                if reply.status != 200:
                    await refuse(reply, request.endpoint.input)
                relay = relay_stream if request.body.stream else relay_whole
                await relay(request, reply, client, settlement)
            finally:
                reply.close()
                if count.over:
                    _LOG.error("the server of %s told more usage of %s than held", model, settlement.claims.attempt)
        except asyncio.CancelledError:
            if heard and not client.started:
                # It has read the prompt, for which it is paid.
                settlement.usage = TokenUsage(sum(bounds.guesses), 0)
            raise

    async def _asked(
        self,
        request: ResolvedRequest,
        server: ServerSource,
        limits: ReplyLimits,
        settlement: RequestSettlement,
        heard: Callable[[], None],
    ) -> Reply:
        body, model = request.body, request.model.base
        path = request.endpoint.upstream.removeprefix("/v1")
        user = hashed_end_user(body, request.organization, self._user_secret) if server.end_users else None
        sent = body_elsewhere(body, model, server, request.max_tokens, user)
        key = self._keys.get(model.id)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            try:
                settlement.begin_attempt(model.id)
                return await self._client.post(server.url + path, sent, headers, limits, heard)
            except ConnectionStale:
                settlement.begin_attempt(model.id)
                return await self._client.post(server.url + path, sent, headers, limits, heard)
        except ReplicaLost as error:
            self._back_off.failed(model.id, None)
            gone = isinstance(error, ReplicaUnreachable)
            raise AttemptFailed(no_replica(request.body.model) if gone else lost(), lost=True) from error
        except ReplyOverdue as error:
            raise AttemptFailed(overdue()) from error

    def _heed(self, model: str, status: int, reply: ServerReply) -> None:
        if reply.status != 503:
            self._back_off.answered(model)
            return
        self._back_off.failed(model, reply.retry_after_s)
        _LOG.warning(
            "the server of %s answers %d, and is asked again in %.0f s", model, status, self._back_off.wait_s(model)
        )


def stand_in(request: ResolvedRequest) -> ResolvedRequest | None:
    """Return the request as the fallback of its model can serve it, at the same price; None where none can.

    A fine-tuned model has none: elsewhere nobody knows its adapter.
    """
    model, fallback = request.model, request.model.base.fallback
    if fallback is None or fallback.server is None or model.adapter is not None:
        return None
    other = msgspec.structs.replace(request, model=msgspec.structs.replace(model, base=fallback))
    try:
        request.body.check_model(fallback)
        check_taken(request.endpoint, request.body, fallback, fallback.server)
    except InvalidRequest:
        return None
    return other if other.fits else None


def _bounds(request: ResolvedRequest) -> CountBounds:
    guesses = list(request.prompts) if request.exact else _guesses(request, request.model.base)
    return CountBounds(request.prompts, guesses, request.body.choices, max(1, request.max_tokens))


def _guesses(request: ResolvedRequest, model: BaseModel) -> list[int]:
    prompts = request.body.prompts(model)
    return [max(1, -(-(prompt.bound - prompt.tokens) // BYTES_A_TOKEN) + prompt.tokens) for prompt in prompts]


def _shape(request: ResolvedRequest, settlement: RequestSettlement) -> AnswerShape:
    chat = request.endpoint.upstream == CHAT
    identity = f"{'chatcmpl' if chat else 'cmpl'}-{request_of(settlement.claims.attempt)}"
    return AnswerShape(
        chat, identity, request.model.name, int(time.time()), len(request.prompts) * request.body.choices
    )
