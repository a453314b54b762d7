"""The one path of every endpoint that costs money: authenticate, resolve, admit, route, relay, settle."""

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from tokenyard.core.admission import Admitted, PrincipalOutdated
from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, TokenyardError, Unavailable
from tokenyard.core.ids import RequestId
from tokenyard.core.principal import Principal
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.table import Endpoint
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.replay import Replay
from tokenyard.gateway.idempotency.stage import AskedOnce, IdempotencyStage
from tokenyard.gateway.metrics import GatewayMetrics
from tokenyard.gateway.path.admit import AdmissionStage
from tokenyard.gateway.path.client import STALL_LIMIT_S, ClientConnection, ClientLeft
from tokenyard.gateway.path.in_flight import InFlight, InFlightBounds
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.resolve import ResolvedRequest, fitted, resolve
from tokenyard.gateway.path.settle import RequestSettlement, Settler
from tokenyard.gateway.path.telemetry import RequestTelemetry
from tokenyard.gateway.ports import AdmissionControl, ModelResolver
from tokenyard.web.access_log import AccessLog
from tokenyard.web.auth import Authenticator, bearer

# Nginx's number for "the client closed the request": only ever seen in logs and metrics.
CLIENT_CLOSED_REQUEST = 499

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class _Caller(NamedTuple):
    """Who asks, and what it takes to look that up afresh."""

    principal: Principal
    secret: str
    address: str


class Inference:
    """A bare ASGI application for one of the paid endpoints."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        models: ModelResolver,
        admission: AdmissionControl,
        relay: Relay,
        idempotency: IdempotencyStage,
        clock: Clock,
        registry: CollectorRegistry,
        access_log: AccessLog,
        max_request_bytes: int,
        counter: TokenCounter | None = None,
        in_flight: InFlightBounds | None = None,
        stall_limit_s: float = STALL_LIMIT_S,
    ) -> None:
        self._authenticator = authenticator
        self._models = models
        self._relay = relay
        self._idempotency = idempotency
        self._clock = clock
        self._metrics = GatewayMetrics(registry)
        self._log = access_log
        self._max_request_bytes = max_request_bytes
        self._places = InFlight(in_flight or InFlightBounds())
        self._stall_limit_s = stall_limit_s
        self._counter = counter or TokenCounter()
        self._admission = AdmissionStage(admission, self._counter, clock)
        self.settler = Settler(admission, clock)

    async def __call__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way it can end is answered, counted and logged."""
        client = ClientConnection(scope, receive, send, stall_limit_s=self._stall_limit_s)
        telemetry = RequestTelemetry(endpoint.path, self._metrics, self._log, self._clock.now_ms() / 1000)
        telemetry.note_client_id(client.header(b"x-client-request-id"))
        self._count(+1)
        try:
            await self._serve(endpoint, scope["method"], client, telemetry)
        except ClientLeft:
            client.status = CLIENT_CLOSED_REQUEST
        except TokenyardError as error:
            telemetry.refused(error)
            await _send_error(endpoint, error, client, telemetry)
        except Exception:  # the last resort of this path: the client learns nothing of our inside
            _LOG.exception("request %s failed", telemetry.request_id)
            unforeseen = TokenyardError("The server had an error while processing your request.")
            telemetry.refused(unforeseen)
            await _send_error(endpoint, unforeseen, client, telemetry)
        finally:
            self._count(-1)
            telemetry.ended(client.status)

    def _count(self, change: int) -> None:
        self._places.requests += change
        self._metrics.set_in_flight(self._places.requests)

    async def _serve(
        self, endpoint: Endpoint, method: str, client: ClientConnection, telemetry: RequestTelemetry
    ) -> None:
        if method != "POST":
            raise _wrong_method(method, endpoint)
        self._places.check_room()
        secret = bearer(client.header(b"authorization"))
        principal = await self._authenticator.tenant(secret, client.address)
        caller = _Caller(principal, secret, client.address)
        telemetry.caller(principal.organization, principal.project, principal.key)
        with self._places.place(principal.organization) as place:
            raw = await client.body(self._max_request_bytes, place.came)
            body = endpoint.parse(raw)
            key = client.header(b"idempotency-key")
            if key is None:
                await self._serve_body(endpoint, body, caller, client, telemetry)
                return
            asked = AskedOnce.read(key, client.header(b"last-event-id"), endpoint.path, raw, stream=bool(body.stream))
            exchange = KeyedExchange(client, place, telemetry)
            begun = await self._with_fresh(caller, lambda who: self._idempotency.begin(asked, who, exchange))
            if isinstance(begun, Replay):
                await begun.send()
                return
            async with begun:
                await self._serve_body(endpoint, body, caller, client, telemetry)

    async def _serve_body(
        self,
        endpoint: Endpoint,
        body: PaidBody,
        caller: _Caller,
        client: ClientConnection,
        telemetry: RequestTelemetry,
    ) -> None:
        request = await resolve(endpoint, body, caller.principal, self._models, self._counter)
        request, admitted = await self._admit(request, caller, telemetry.request_id)
        telemetry.admitted(request.model.name, admitted.rates.headers())
        async with RequestSettlement(self.settler, admitted.claims, request.model.price, telemetry) as settlement:
            async with client.watched():
                # Counting comes after the limits, so that who is over them cannot make us count.
                await self._relay.run(await fitted(request, self._counter), client, settlement)

    async def _admit(
        self, request: ResolvedRequest, caller: _Caller, request_id: RequestId
    ) -> tuple[ResolvedRequest, Admitted]:
        return await self._with_fresh(caller, lambda who: self._admission.admit(request, who, request_id))

    async def _with_fresh(self, caller: _Caller, ask: Callable[[Principal], Awaitable[T]]) -> T:
        """Ask for the caller; where it was changed since, look the key up afresh and ask once more."""
        try:
            return await ask(caller.principal)
        except PrincipalOutdated:
            fresh = await self._authenticator.fresh_tenant(caller.secret, caller.address)
        try:
            return await ask(fresh)
        except PrincipalOutdated as error:  # changed once more, or SQL answered with an old copy
            raise Unavailable("The API key was changed just now. Please try again.") from error


async def _send_error(
    endpoint: Endpoint, error: TokenyardError, client: ClientConnection, telemetry: RequestTelemetry
) -> None:
    if client.started:
        return
    body = endpoint.error_body(error)
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    own.extend((name.encode(), value.encode()) for name, value in error.headers.items())
    await client.start(error.status, telemetry.headers(own))
    await client.finish(body)


def _wrong_method(method: str, endpoint: Endpoint) -> InvalidRequest:
    error = InvalidRequest(
        f"Not allowed to {method} on {endpoint.path}. (HINT: Perhaps you meant to use POST?)",
        code="method_not_supported",
        headers={"allow": "POST"},
    )
    error.status = 405
    return error
