"""Lets a request at the engine when its payer is known, its adapter loaded and room for it; then reports its count."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from tokenyard.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, TokenyardError, Unavailable
from tokenyard.core.replica import INTERNAL_PREFIX, ReplicaLoad
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter_header
from tokenyard.metering.events import ReplicaReported
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptTokens
from tokenyard_deployments.serving.front.admission import EngineAdmission
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.exchange import Exchange, engine_dead
from tokenyard_deployments.serving.front.request_body import Load, read_body, read_load
from tokenyard_deployments.serving.reporter import Reporter

_LOG = logging.getLogger(__name__)
ABORT_TIMEOUT_S = 5.0
_BROKEN_MODEL_RETRY_S = 30.0

BILLABLE = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/score"}
)
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
        admission: EngineAdmission,
        residency: Residency,
        reporter: Reporter,
        context_length: int,
        generates: bool,
        max_wait_s: float,
        load: Callable[[], ReplicaLoad],
    ) -> None:
        self._app = app
        self._secret = secret
        self._replica = replica
        self._engine = engine
        self._admission = admission
        self._residency = residency
        self._reporter = reporter
        self._context_length = context_length
        self._generates = generates
        self._max_wait_s = max_wait_s
        self._load = load
        self._exchanges: set[Exchange] = set()
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

    def hang_up_all(self) -> None:
        """End every request inside: the engine will not answer any more."""
        for exchange in self._exchanges:
            exchange.hang_up(engine_dead())

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        claims = self._claims(scope)
        self._check_open()
        body = await read_body(receive)
        load = read_load(body, claims, self._context_length, generates=self._generates)
        attempt = AttemptTokens(claims)
        exchange = Exchange(body, receive, send, dead=lambda: self._engine.dead, load=self._load)
        held = AsyncExitStack()
        try:
            # Whoever waits for its adapter holds nothing that others could use.
            await self._hold_adapter(held, claims)
            self._check_open()
            held.enter_context(self._admission.enter(claims.organization, load, attempt))
            await self._run(scope, exchange, attempt, load)
        finally:
            # A task of its own, because this one may be cancelled again at any time.
            ending = asyncio.create_task(self._end(attempt, held, exchange), name=f"end {claims.attempt}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if exchange.error is not None and not exchange.started:
            raise exchange.error

    def _check_open(self) -> None:
        if self._engine.dead:
            raise engine_dead()
        if self._reporter.full:
            raise Unavailable("This replica takes no new requests.", retry_after_s=5)

    async def _run(self, scope: Scope, exchange: Exchange, attempt: AttemptTokens, load: Load) -> None:
        """Let the engine answer; one that has nothing to show after `max_wait_s` is told that the client left."""

        def give_up() -> None:
            if not attempt.begun and not exchange.started:
                retry_after_s = self._admission.retry_after_s(attempt.claims.organization, load)
                exchange.hang_up(
                    Unavailable("The model is overloaded: the request waited too long.", retry_after_s=retry_after_s)
                )

        waiting = asyncio.get_running_loop().call_later(self._max_wait_s, give_up)
        token = CURRENT_ATTEMPT.set(attempt)
        self._exchanges.add(exchange)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if exchange.started or not self._engine.dead:
                raise
            exchange.hang_up(engine_dead())
        finally:
            self._exchanges.remove(exchange)
            CURRENT_ATTEMPT.reset(token)
            waiting.cancel()

    async def _hold_adapter(self, held: AsyncExitStack, claims: MeterClaims) -> None:
        try:
            await held.enter_async_context(self._residency.using(claims.adapter))
        except (InvalidRequest, Conflict) as error:
            # The request is right; it is the model behind its name that cannot be served.
            _LOG.error("attempt %s: %s", claims.attempt, error.message)
            raise Unavailable("The model cannot be loaded.", retry_after_s=_BROKEN_MODEL_RETRY_S) from error
        except Exception as error:
            if self._engine.dead:
                raise engine_dead() from error
            raise

    async def _end(self, attempt: AttemptTokens, held: AsyncExitStack, exchange: Exchange) -> None:
        """Stop what the engine still does for a request that is over, free its place, and report its count."""
        attempt.close()
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
                    finished=exchange.complete and not attempt.aborted,
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
