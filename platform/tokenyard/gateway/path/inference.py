"""The one path of every endpoint that costs money: authenticate, resolve, admit, route, relay, settle."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from tokenyard.core.admission import Admitted, PrincipalOutdated
from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, TokenyardError, Unavailable
from tokenyard.core.ids import RequestId
from tokenyard.core.principal import KeyScope, Principal
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.table import Endpoint
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.replay import Replay
from tokenyard.gateway.idempotency.stage import AskedOnce, IdempotencyStage
from tokenyard.gateway.metrics import GatewayMetrics
from tokenyard.gateway.path.admit import AdmissionStage
from tokenyard.gateway.path.background import RENEWAL_S, BackgroundRuns
from tokenyard.gateway.path.client import STALL_LIMIT_S, ClientConnection, ClientLeft
from tokenyard.gateway.path.in_flight import InFlight, InFlightBounds, Place
from tokenyard.gateway.path.recall import recall
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.resolve import ResolvedRequest, fitted, resolve
from tokenyard.gateway.path.settle import RequestSettlement, Settler
from tokenyard.gateway.path.telemetry import RequestTelemetry
from tokenyard.gateway.ports import AdmissionControl, ModelResolver, StoredAnswers
from tokenyard.web.access_log import AccessLog
from tokenyard.web.auth import Authenticator, bearer, check_scope

# Nginx's number for "the client closed the request": only ever seen in logs and metrics.
CLIENT_CLOSED_REQUEST = 499

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class _Caller(NamedTuple):
    """Who asks, and what it takes to look that up afresh."""

    principal: Principal
    secret: str
    address: str


class _Asked(NamedTuple):
    """One request on its way; what `under_way` closes counts it among those under way."""

    endpoint: Endpoint
    body: PaidBody
    caller: _Caller
    client: ClientConnection
    telemetry: RequestTelemetry
    place: Place
    under_way: ExitStack


class Inference:
    """A bare ASGI application for one of the paid endpoints."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        models: ModelResolver,
        admission: AdmissionControl,
        relay: Relay,
        answers: StoredAnswers,
        idempotency: IdempotencyStage,
        clock: Clock,
        registry: CollectorRegistry,
        access_log: AccessLog,
        max_request_bytes: int,
        counter: TokenCounter | None = None,
        in_flight: InFlightBounds | None = None,
        stall_limit_s: float = STALL_LIMIT_S,
        background_renewal_s: float = RENEWAL_S,
    ) -> None:
        self._authenticator = authenticator
        self.models = models
        self._relay = relay
        self._answers = answers
        self._idempotency = idempotency
        self._clock = clock
        self._metrics = GatewayMetrics(registry)
        self._log = access_log
        self._max_request_bytes = max_request_bytes
        self._places = InFlight(in_flight or InFlightBounds())
        self._stall_limit_s = stall_limit_s
        self.counter = counter or TokenCounter()
        self._admission = AdmissionStage(admission, self.counter, clock)
        self._background = BackgroundRuns(relay, answers, renewal_s=background_renewal_s)
        self.settler = Settler(admission, clock)

    async def __call__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way it can end is answered, counted and logged."""
        client = ClientConnection(scope, receive, send, stall_limit_s=self._stall_limit_s)
        telemetry = RequestTelemetry(
            endpoint.path, self._metrics, self._log, self._clock.now_ms() / 1000, endpoint.errors.id_headers
        )
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
        secret = _secret(client)
        principal = await self._authenticator.tenant(secret, client.address)
        check_scope(principal, KeyScope.INFERENCE)
        caller = _Caller(principal, secret, client.address)
        telemetry.caller(principal.organization, principal.project, principal.key)
        with ExitStack() as stack:
            place = stack.enter_context(self._places.place(principal.organization))
            raw = await client.body(self._max_request_bytes, place.came)
            body = endpoint.parse(raw)
            asked = _Asked(endpoint, body, caller, client, telemetry, place, stack)
            key = client.header(b"idempotency-key")
            if key is None:
                await self._serve_body(asked)
                return
            last = client.header(b"last-event-id")
            await self._serve_once(AskedOnce.read(key, last, endpoint.path, raw, stream=bool(body.stream)), asked)

    async def _serve_once(self, once: AskedOnce, asked: _Asked) -> None:
        """Serve a request that is known by a key of its client's, or give its reply again."""
        exchange = KeyedExchange(asked.client, asked.place, asked.telemetry)
        begun = await self._with_fresh(asked.caller, lambda who: self._idempotency.begin(once, who, exchange))
        if isinstance(begun, Replay):
            await begun.send()
            return
        async with begun:
            await self._serve_body(asked)

    async def _serve_body(self, asked: _Asked) -> None:
        body, principal, telemetry = asked.body, asked.caller.principal, asked.telemetry
        await recall(body, principal, self._answers, asked.place.came)
        request = await resolve(asked.endpoint, body, principal, self.models, self.counter)
        request, admitted = await self._admit(request, asked.caller, telemetry.request_id)
        telemetry.admitted(request.model.name, admitted.rates.headers())
        keep = partial(self._answers.keep, principal.organization, principal.project)
        settlement = RequestSettlement(self.settler, admitted.claims, request.model.price, telemetry, keep)
        if body.in_background:
            await self._begin(request, settlement, asked)
            return
        async with settlement:
            async with asked.client.watched():
                # Counting comes after the limits, so that who is over them cannot make us count.
                await self._relay.run(await fitted(request, self.counter), asked.client, settlement)

    async def _begin(self, request: ResolvedRequest, settlement: RequestSettlement, asked: _Asked) -> None:
        """Answer that the request is queued, and go on with it; its place among those under way goes with it."""
        taken = asked.under_way.pop_all()
        self._count(+1)
        taken.callback(self._count, -1)
        try:
            told = await self._background.begin(await fitted(request, self.counter), settlement, taken)
        except BaseException:
            taken.close()
            async with settlement:  # no attempt has begun, so it costs nothing
                raise
        await _send(asked.client, 200, told, settlement.telemetry, {})

    async def drain(self) -> None:
        """Wait for what goes on after the clients were answered, for a limited time."""
        await self._background.close()
        await self.settler.drain()

    async def _admit(
        self, request: ResolvedRequest, caller: _Caller, request_id: RequestId
    ) -> tuple[ResolvedRequest, Admitted]:
        async def ask(who: Principal) -> tuple[ResolvedRequest, Admitted]:
            if who is not caller.principal:  # for whom the model was looked up
                who.check_model(request.model.name)
            return await self._admission.admit(request, who, request_id)

        return await self._with_fresh(caller, ask)

    async def _with_fresh(self, caller: _Caller, ask: Callable[[Principal], Awaitable[T]]) -> T:
        """Ask for the caller; where it was changed since, look the key up afresh and ask once more."""
        try:
            return await ask(caller.principal)
        except PrincipalOutdated:
            fresh = await self._authenticator.fresh_tenant(caller.secret, caller.address)
        check_scope(fresh, KeyScope.INFERENCE)
        try:
            return await ask(fresh)
        except PrincipalOutdated as error:  # changed once more, or SQL answered with an old copy
            raise Unavailable("The API key was changed just now. Please try again.") from error


def _secret(client: ClientConnection) -> str:
    authorization = client.header(b"authorization")
    return bearer(authorization, client.header(b"x-api-key") if authorization is None else None)


async def _send_error(
    endpoint: Endpoint, error: TokenyardError, client: ClientConnection, telemetry: RequestTelemetry
) -> None:
    if client.started:
        return
    await _send(client, error.status, endpoint.errors.body(error, telemetry.request_id), telemetry, error.headers)


async def _send(
    client: ClientConnection, status: int, body: bytes, telemetry: RequestTelemetry, headers: Mapping[str, str]
) -> None:
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    own.extend((name.encode(), value.encode()) for name, value in headers.items())
    await client.start(status, telemetry.headers(own))
    await client.finish(body)


def _wrong_method(method: str, endpoint: Endpoint) -> InvalidRequest:
    error = InvalidRequest(
        f"Not allowed to {method} on {endpoint.path}. (HINT: Perhaps you meant to use POST?)",
        code="method_not_supported",
        headers={"allow": "POST"},
    )
    error.status = 405
    return error
