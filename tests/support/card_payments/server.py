"""A local Stripe: the endpoints that Tokenyard uses, over HTTP, with Stripe's idempotency keys and faults on demand."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web

from support.card_payments.account import Call, StripeAccount, StripeRefusal, invalid

API_KEY, WEBHOOK_SECRET = "sk_test_tokenyard", "whsec_tokenyard"


class Fault(Enum):
    """How one call goes wrong."""

    RESET = "the connection breaks before anything was done"
    LOST_ANSWER = "it is done, and the connection breaks before the answer"
    SLOW_ANSWER = "it is done, and the answer takes longer than anyone waits"
    ERROR = "500"
    BUSY = "429"


@dataclass
class StripeServer:
    """`faults` are of the next calls whose path ends so, one each. `calls` are all that came, as `POST /v1/...`."""

    account: StripeAccount = field(default_factory=StripeAccount)
    url: str = ""
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _answers: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return _json(401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}})
        fault = self._fault(request.path)
        if fault is Fault.RESET:
            return _broken(request)
        if fault is Fault.BUSY:
            return _json(429, {"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Busy"}})
        params = {**request.query, **dict((await request.post()).items())}
        answer = self._once(request, {key: str(value) for key, value in params.items()}, failing=fault is Fault.ERROR)
        if fault is Fault.LOST_ANSWER:
            return _broken(request)
        if fault is Fault.SLOW_ANSWER:
            await asyncio.sleep(60)
        return answer

    def signed(self, event: Mapping[str, Any], at_ms: int, secret: str = WEBHOOK_SECRET) -> tuple[bytes, str]:
        """Return the body of a webhook and its signature, made at a moment."""
        body = json.dumps(event).encode()
        signature = hmac.new(secret.encode(), f"{at_ms // 1000}.".encode() + body, hashlib.sha256).hexdigest()
        return body, f"t={at_ms // 1000},v1={signature}"

    def _fault(self, path: str) -> Fault | None:
        for place, (ending, fault) in enumerate(self.faults):
            if path.endswith(ending):
                del self.faults[place]
                return fault
        return None

    def _once(self, request: web.Request, params: Mapping[str, str], *, failing: bool) -> web.Response:
        """Answer a key that was used before as then, also with what was an error of the server's own."""
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        asked = f"{request.path} {sorted(params.items())}"
        if key is not None and key in self._answers:
            before, status, body = self._answers[key]
            if before != asked:
                message = "Keys for idempotent requests can only be used with the same parameters."
                return _json(400, {"error": {"type": "idempotency_error", "message": message}})
            return web.Response(status=status, body=body, content_type="application/json")
        if failing:
            answer = _json(500, {"error": {"type": "api_error", "message": "Something went wrong"}})
        else:
            try:
                answer = _json(200, self._call(request)(params))
            except StripeRefusal as refusal:
                answer = _json(refusal.status, refusal.body)
        if key is not None:
            assert isinstance(answer.body, bytes)
            self._answers[key] = (asked, answer.status, answer.body)
        return answer

    def _call(self, request: web.Request) -> Call:  # noqa: PLR0911 - a table
        account = self.account
        match [request.method, *request.path.removeprefix("/v1/").split("/")]:
            case ["POST", "customers"]:
                return account.create_customer
            case ["GET", "customers", customer, "payment_methods"]:
                return lambda _params: account.list_methods(customer)
            case ["POST", "payment_methods", method, "detach"]:
                return lambda _params: account.detach_method(method)
            case ["POST", "payment_intents"]:
                return account.create_intent
            case ["GET", "payment_intents", intent]:
                return lambda _params: account.intent(intent)
            case ["POST", "payment_intents", intent, "confirm"]:
                return lambda params: account.confirm_intent(intent, params)
            case ["POST", "payment_intents", intent, "cancel"]:
                return lambda _params: account.cancel_intent(intent)
            case ["POST", "checkout", "sessions"]:
                return account.create_session
            case ["GET", "checkout", "sessions", session]:
                return lambda params: account.session(session, params)
        raise invalid("", f"Unrecognized request URL ({request.method}: {request.path}).", 404)


@asynccontextmanager
async def stripe_server() -> AsyncIterator[StripeServer]:
    server = StripeServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
