"""The one path of every endpoint that costs money: authenticate, resolve, admit, route, relay, settle."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from tokenyard.core.admission import Admitted, PrincipalOutdated
from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, RateLimited, TokenyardError, Unavailable
from tokenyard.core.ids import RequestId, RequestIdSource
from tokenyard.core.principal import KeyScope, Principal
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.body_bounds import FREE_BYTES
from tokenyard.gateway.endpoints.table import Endpoint
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.replay import Replay
from tokenyard.gateway.idempotency.stage import AskedOnce, IdempotencyStage
from tokenyard.gateway.metrics import GatewayMetrics
from tokenyard.gateway.path.admit import AdmissionStage
from tokenyard.gateway.path.background import RENEWAL_S, BackgroundRuns, unheard
from tokenyard.gateway.path.client import ClientConnection, ClientLeft
from tokenyard.gateway.path.in_flight import InFlight, InFlightBounds, Place
from tokenyard.gateway.path.onlooker import Onlooker
from tokenyard.gateway.path.recall import recall
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.replies import EVENTS
from tokenyard.gateway.path.resolve import ResolvedRequest, count_input, fitted, resolve
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.path.telemetry import RequestTelemetry
from tokenyard.gateway.ports import AdmissionControl, ModelResolver, StoredAnswers
from tokenyard.web.access_log import AccessLog
from tokenyard.web.auth import Authenticator, bearer, check_scope
from tokenyard.web.network_pace import Allowance, NetworkPace
from tokenyard.web.token_buckets import Patience

# Nginx's number for "the client closed the request": only ever seen in logs and metrics.
CLIENT_CLOSED_REQUEST = 499
# Of the event loop's time, for those requests of an organization that are refused. A refusal counts as somewhat less
# than it takes, so that there may be a hundred in a second.
REFUSED_SHARE, REFUSED_BURST_S, REFUSAL_S = 0.01, 0.05, 0.0001
# The same for a network without a good key, and for all of those that go on asking: 75 refusals in a second.
OF_A_STRANGER, OF_STRANGERS, STRANGER_S = Allowance(0.04, 0.01), Allowance(0.03, 0.03), 0.0004

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class _Caller(NamedTuple):
    """Who asks, and what it takes to look that up afresh."""

    principal: Principal
    secret: str
    address: str


class _Asked(NamedTuple):
    """One request on its way."""

    endpoint: Endpoint
    body: PaidBody
    caller: _Caller
    client: ClientConnection
    telemetry: RequestTelemetry
    place: Place


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
        background_renewal_s: float = RENEWAL_S,
    ) -> None:
        self._authenticator = authenticator
        self._models = models
        self._relay = relay
        self._answers = answers
        self._idempotency = idempotency
        self._clock = clock
        self._metrics = GatewayMetrics(registry)
        self._log = access_log
        self._max_request_bytes = max_request_bytes
        self._places = places = InFlight(in_flight or InFlightBounds())
        self._metrics.count_in_flight(lambda: places.requests)
        self._metrics.count_waiting(lambda: relay.waiting)
        self._refused = Patience(REFUSED_SHARE, REFUSED_BURST_S)
        self._strangers = NetworkPace(OF_A_STRANGER, OF_STRANGERS)
        self._counter = counter or TokenCounter()
        self._control = admission
        self._ids = RequestIdSource()
        self._admission = AdmissionStage(admission, self._counter, clock)
        self._background = BackgroundRuns(relay, answers, renewal_s=background_renewal_s)

    async def __call__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way it can end is answered, counted and logged."""
        client = ClientConnection(scope, receive, send)
        telemetry = RequestTelemetry(
            self._ids.new(),
            endpoint.path,
            self._metrics,
            self._log,
            at_s=self._clock.now_ms() / 1000,
            id_headers=endpoint.errors.id_headers,
        )
        telemetry.note_client_id(client.header(b"x-client-request-id"))
        refusal: TokenyardError | None = None
        self._places.requests += 1
        try:
            await self._serve(endpoint, scope["method"], client, telemetry)
        except ClientLeft:
            client.status = CLIENT_CLOSED_REQUEST
        except TokenyardError as error:
            refusal = error
        except Exception:  # the last resort of this path: the client learns nothing of our inside
            _LOG.exception("request %s failed", telemetry.request_id)
            refusal = TokenyardError("The server had an error while processing your request.")
        finally:
            self._places.requests -= 1
            if refusal is None:
                telemetry.ended(client.status)
        if refusal is not None:
            await self._refuse(endpoint, refusal, client, telemetry)

    async def _refuse(
        self, endpoint: Endpoint, error: TokenyardError, client: ClientConnection, telemetry: RequestTelemetry
    ) -> None:
        """Tell of a failure; who is refused again and again is told later, and costs us the less."""
        _forget(error)
        telemetry.refused(error)
        try:
            if not client.started and (wait_s := self._told_after_s(error, client)):
                await asyncio.sleep(wait_s)
            await _send_error(endpoint, error, client, telemetry)
        finally:
            telemetry.ended(client.status)

    def _told_after_s(self, error: TokenyardError, client: ClientConnection) -> float:
        """Note a refusal; return how long it waits. A failure of ours is told at once, but to nobody we do not know:
        who makes up enough keys is refused because we are busy with them.
        """
        if not client.identified:
            self._strangers.took(client.known_as, STRANGER_S)
            return self._strangers.wait_s(client.known_as)
        if error.status >= TokenyardError.status:
            return 0.0
        self._refused.took(client.known_as, REFUSAL_S)
        return self._refused.wait_s(client.known_as)

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
        client.identify(principal.organization)
        with self._places.place(principal.organization) as place:
            raw = await client.body(self._max_request_bytes, place.came)
            body = self._parsed(endpoint, raw, client)
            asked = _Asked(endpoint, body, caller, client, telemetry, place)
            key, last = client.header(b"idempotency-key"), client.header(b"last-event-id")
            if key is None and last is None:
                await self._serve_body(asked)
                return
            await self._serve_once(AskedOnce.read(key, last, endpoint.path, raw, stream=bool(body.stream)), asked)

    def _parsed(self, endpoint: Endpoint, raw: bytes, client: ClientConnection) -> PaidBody:
        if len(raw) > FREE_BYTES and self._refused.is_at_its_end(client.known_as):
            raise RateLimited("Too many large requests of yours were wrong. Please try again shortly.")
        began = time.perf_counter()
        try:
            return endpoint.parse(raw)
        except InvalidRequest:
            self._refused.took(client.known_as, time.perf_counter() - began)
            raise

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
        request = await resolve(asked.endpoint, body, principal, self._models, self._counter)
        request, admitted = await self._admit(request, asked.caller, telemetry.request_id)
        telemetry.admitted(request.model.name, admitted.rates.raw_headers())
        keep = partial(self._answers.keep, principal.organization, principal.project)
        price = request.model.price
        settlement = RequestSettlement(
            self._control, self._clock, admitted.claims, price, telemetry=telemetry, keep=keep
        )
        if body.in_background:
            await self._begin(request, settlement, asked)
            return
        with settlement, asked.client.watched():
            # Counting comes after the limits, so that who is over them cannot make us count.
            await self._relay.run(await fitted(request, self._counter), asked.client, settlement)

    async def _begin(self, request: ResolvedRequest, settlement: RequestSettlement, asked: _Asked) -> None:
        """Answer that the request is queued, and go on with it; its place among those under way goes with it.

        Who asked for a stream may look on.
        """
        taken = ExitStack()
        taken.push(asked.place.pass_on())
        taken.enter_context(self._places.request())
        telemetry, onlooker = settlement.telemetry, Onlooker(asked.client) if asked.body.stream else None
        send = unheard if onlooker is None else onlooker.send
        try:
            fit = await fitted(request, self._counter)
            told, run = await self._background.begin(fit, settlement, taken, send)
        except BaseException:
            taken.close()
            with settlement:  # no attempt has begun, so it costs nothing
                raise
        if onlooker is None:
            await _send(asked.client, 200, told, telemetry, {})
        else:
            await onlooker.look(telemetry.headers(EVENTS), told, run)

    async def count_input(self, path: str, body: PaidBody, principal: Principal) -> int:
        """Return how many tokens a model would be made to read, for free; raises as a request would."""
        with self._places.place(principal.organization) as place:
            await recall(body, principal, self._answers, place.came)
            return await count_input(path, body, principal, self._models, self._counter)

    async def drain(self) -> None:
        """Wait for what goes on after the clients were answered, for a limited time."""
        await self._background.close()

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


def _forget(error: TokenyardError) -> None:
    """Let go of what the error holds of its request, which may be megabytes, and waits for the collector else."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


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
        headers={"allow": endpoint.methods},
    )
    error.status = 405
    return error
