"""Stage 6: whatever happens to a request that was let in, its hold is released and its usage reported, once."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.ids import attempt_id, request_of
from tokenyard.core.money import NanoDollars, Price, inference_cost
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.gateway.endpoints.answer import Answer, KeptAnswer
from tokenyard.gateway.path.client import ClientLeft
from tokenyard.gateway.path.telemetry import RequestTelemetry
from tokenyard.gateway.ports import AdmissionControl
from tokenyard.metering.events import Outcome, Settled

_NOTHING = TokenUsage(0, 0)

Keep = Callable[[KeptAnswer], Awaitable[None]]


class RequestSettlement:
    """`with` around everything that happens after admission. The relay writes down how far it came."""

    def __init__(
        self,
        control: AdmissionControl,
        clock: Clock,
        claims: MeterClaims,
        price: Price,
        *,
        telemetry: RequestTelemetry,
        keep: Keep,
    ) -> None:
        self._control = control
        self._clock = clock
        self._keep = keep
        self._price = price
        self.telemetry = telemetry
        self.claims = claims
        self.outcome = Outcome.FAILED
        self.usage = _NOTHING
        self.answer: Answer | None = None  # of the attempt that is under way
        self._attempts = 0

    @property
    def cost(self) -> NanoDollars:
        return NanoDollars(0) if self.outcome is Outcome.FAILED else inference_cost(self._price, self.usage)

    def begin_attempt(self, server: str = "") -> None:
        """From now on the next attempt, at a replica or at a server elsewhere, is what the request is settled with."""
        self._attempts += 1
        if self._attempts > 1 or server != self.claims.server:
            attempt = attempt_id(request_of(self.claims.attempt), self._attempts)
            self.claims = msgspec.structs.replace(self.claims, attempt=attempt, server=server)
        self.usage = _NOTHING

    async def keep(self, answer: Answer) -> None:
        """Keep an answer that its client wants to find again, before the client is told that it has ended."""
        kept = answer.kept()
        if kept is not None:
            await self._keep(kept)

    def __enter__(self) -> "RequestSettlement":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        left = isinstance(error, ClientLeft | asyncio.CancelledError)
        # Before the first attempt no replica has heard of it, so there is nothing to wait for.
        if left and self._attempts and self.outcome is not Outcome.COMPLETED:
            self.outcome = Outcome.LEFT_ELSEWHERE if self.claims.server else Outcome.CLIENT_LEFT
        settled = Settled(self.claims, self.outcome, self.usage, self._clock.now_ms())
        self.telemetry.settled(settled)
        self._control.settle(settled, self.cost)
