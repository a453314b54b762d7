"""The door to the engine: whose request is it, is there a slot, is its adapter loaded; at the end, its count."""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import Protocol

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenyard.core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    TokenyardError,
    Unavailable,
)
from tokenyard.core.replica import INTERNAL_PREFIX
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter_header
from tokenyard.metering.events import ReplicaReported
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.engine.meter import CURRENT_METER, Meter
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.slots import Slots
from tokenyard_deployments.serving.reporter import Reporter

_LOG = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 << 20
ABORT_TIMEOUT_S = 5.0
_BROKEN_MODEL_RETRY_S = 30.0

BILLABLE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"})
FREE = frozenset({"/metrics", "/health", "/version", "/v1/models", "/tokenize", "/detokenize"})


class _Body(msgspec.Struct):
    """What the door must know of a body; everything else in it is the engine's business."""

    model: str = ""
    n: int | None = None
    best_of: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    background: bool | None = None


_BODY = msgspec.json.Decoder(_Body)


class Engine(Protocol):
    """The engine, as far as the door needs it."""

    @property
    def dead(self) -> bool: ...

    async def abort(self, sequences: tuple[str, ...]) -> None: ...


class MeteredRequests:
    """Everything that costs money goes through here; what is neither free nor internal nor known is not served."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        secret: bytes,
        replica: str,
        engine: Engine,
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
        body = await _read(receive)
        sequences = _check(body, claims)
        meter, response = Meter(claims), _Response(send)
        held = AsyncExitStack()
        try:
            await held.enter_async_context(self._slots.hold(sequences))
            await self._enter_adapter(held, claims)
            token = CURRENT_METER.set(meter)
            try:
                await self._app(scope, _replay(body, receive), response)
            finally:
                CURRENT_METER.reset(token)
        finally:
            # A task of its own, because this one may be cancelled again at any time.
            ending = asyncio.create_task(self._end(meter, held, response), name=f"end {claims.attempt}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _enter_adapter(self, held: AsyncExitStack, claims: MeterClaims) -> None:
        try:
            await held.enter_async_context(self._residency.using(claims.adapter))
        except (InvalidRequest, Conflict) as error:
            # The request is right; it is the model behind its name that cannot be served.
            _LOG.error("attempt %s: %s", claims.attempt, error.message)
            raise Unavailable("The model cannot be loaded.", retry_after_s=_BROKEN_MODEL_RETRY_S) from error

    async def _end(self, meter: Meter, held: AsyncExitStack, response: "_Response") -> None:
        """Stop what the engine still does for a request that is over, free its slot, and report its count."""
        try:
            if meter.open_sequences:
                async with asyncio.timeout(ABORT_TIMEOUT_S):
                    await self._engine.abort(meter.open_sequences)
        except Exception:  # a dead engine cannot be told; the counts were read before it was asked
            _LOG.warning("could not abort %s", meter.claims.attempt, exc_info=True)
        finally:
            await held.aclose()
            self._reporter.report(
                ReplicaReported(
                    claims=meter.claims,
                    usage=meter.usage,
                    replica=self._replica,
                    finished=response.complete and not meter.aborted,
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


async def _read(receive: Receive) -> bytes:
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


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body again, then whatever comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _check(body: bytes, claims: MeterClaims) -> int:
    """Return how many sequences the request asks for; the model it names must be the one it is billed for."""
    try:
        view = _BODY.decode(body)
        prompts = msgspec.json.decode(view.prompt)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not valid: {error}") from None
    expected = claims.adapter.name if claims.adapter is not None else claims.base_model
    if view.model != expected:
        raise PermissionDenied("The body names another model than the meter header.", code="meter_invalid")
    if view.background:
        raise InvalidRequest("Background responses are not supported.", param="background")
    many = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
    return (len(prompts) if many else 1) * max(view.n or 1, view.best_of or 1)
