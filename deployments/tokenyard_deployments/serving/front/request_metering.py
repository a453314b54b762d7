"""Lets a request at the engine when its payer is known, a slot free and its adapter loaded; then reports its count."""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, TokenyardError, Unavailable
from tokenyard.core.replica import INTERNAL_PREFIX
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter_header
from tokenyard.metering.events import ReplicaReported
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptTokens
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.request_body import count_sequences, read_body, replay
from tokenyard_deployments.serving.front.slots import Slots
from tokenyard_deployments.serving.reporter import Reporter

_LOG = logging.getLogger(__name__)
ABORT_TIMEOUT_S = 5.0
_BROKEN_MODEL_RETRY_S = 30.0

BILLABLE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"})
FREE = frozenset({"/metrics", "/health", "/version", "/v1/models", "/tokenize", "/detokenize"})


class MeteredEngine(Protocol):
    """The engine, as far as metering needs it."""

    @property
    def dead(self) -> bool: ...

    async def abort(self, sequences: tuple[str, ...]) -> None: ...


class RequestMetering:
    """Everything that costs money goes through here; what is neither free nor internal nor known is not served."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        secret: bytes,
        replica: str,
        engine: MeteredEngine,
        slots: Slots,
        residency: Residency,
        reporter: Reporter,
    ) -> None:
        self._app = app
        self._secret = secret
        self._replica = replica
        self._engine = engine
        self._slots = slots
        self._residency = residency
        self._reporter = reporter
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        try:
            if path in FREE or path.startswith(INTERNAL_PREFIX):
                await self._app(scope, receive, send)
            elif path in BILLABLE:
                await self._serve(scope, receive, send)
            else:
                raise NotFound(f"This replica does not serve {scope['method']} {path}.")
        except TokenyardError as error:
            await error_response(error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        claims = self._claims(scope)
        if self._reporter.full or self._engine.dead:
            raise Unavailable("This replica takes no new requests.", retry_after_s=5)
        body = await read_body(receive)
        sequences = count_sequences(body, claims)
        attempt, response = AttemptTokens(claims), _Response(send)
        held = AsyncExitStack()
        try:
            await held.enter_async_context(self._slots.hold(sequences))
            await self._hold_adapter(held, claims)
            token = CURRENT_ATTEMPT.set(attempt)
            try:
                await self._app(scope, replay(body, receive), response)
            finally:
                CURRENT_ATTEMPT.reset(token)
        finally:
            # A task of its own, because this one may be cancelled again at any time.
            ending = asyncio.create_task(self._end(attempt, held, response), name=f"end {claims.attempt}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _hold_adapter(self, held: AsyncExitStack, claims: MeterClaims) -> None:
        try:
            await held.enter_async_context(self._residency.using(claims.adapter))
        except (InvalidRequest, Conflict) as error:
            # The request is right; it is the model behind its name that cannot be served.
            _LOG.error("attempt %s: %s", claims.attempt, error.message)
            raise Unavailable("The model cannot be loaded.", retry_after_s=_BROKEN_MODEL_RETRY_S) from error

    async def _end(self, attempt: AttemptTokens, held: AsyncExitStack, response: "_Response") -> None:
        """Stop what the engine still does for a request that is over, free its slot, and report its count."""
        try:
            if attempt.open_sequences:
                async with asyncio.timeout(ABORT_TIMEOUT_S):
                    await self._engine.abort(attempt.open_sequences)
        except Exception:  # a dead engine cannot be told; the counts were read before it was asked
            _LOG.warning("could not abort %s", attempt.claims.attempt, exc_info=True)
        finally:
            await held.aclose()
            self._reporter.report(
                ReplicaReported(
                    claims=attempt.claims,
                    usage=attempt.usage,
                    replica=self._replica,
                    finished=response.complete and not attempt.aborted,
                    reported_at_ms=time.time_ns() // 1_000_000,
                )
            )

    def _claims(self, scope: Scope) -> MeterClaims:
        name = meter_header.HEADER.encode()
        values = [value for given, value in scope["headers"] if given.lower() == name]
        if len(values) != 1:
            raise PermissionDenied("The meter header is missing.", code="meter_missing")
        try:
            return meter_header.verify(values[0].decode("latin-1"), self._secret)
        except meter_header.InvalidMeter:
            raise PermissionDenied("The meter header is not valid.", code="meter_invalid") from None


class _Response:
    """Passes messages on, and remembers whether the response came to its end."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.complete = False

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
