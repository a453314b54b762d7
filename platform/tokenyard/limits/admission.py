"""Lets a request in, or says why not; and settles it when it ended."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.admission import AdmissionRequest, Admitted, PrincipalOutdated
from tokenyard.core.errors import Unavailable
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.hold_leases import HoldLeases
from tokenyard.limits.holds import Hold, HoldSettlement, admit_arguments, checked_amount, hold_of, key_of, limits_of
from tokenyard.limits.live_budgets import BudgetSource, MissingBudgets, RedisBudgets
from tokenyard.limits.refusals import OK, OUTDATED, not_available, rates, refusal
from tokenyard.limits.scripts import Argument, ScriptName, Scripts
from tokenyard.metering.events import Outcome, Settled, encode_event
from tokenyard.metering.outbox import Outbox
from tokenyard.web.loops import Loop, run_loops

SETTLE_WAIT_S = 0.002  # nobody waits for it, and on the way with another call it costs little


class RedisAdmission:
    """One of these a gateway process, used as `async with`."""

    def __init__(
        self, redis: Redis, source: BudgetSource, *, spool_folder: Path, lease_ms: int, renewal_ms: int
    ) -> None:
        self._scripts = Scripts(redis)
        self._missing = MissingBudgets(RedisBudgets(redis, self._scripts), source)
        self._leases = HoldLeases(self._scripts, lease_ms=lease_ms)
        self._outbox = Outbox(redis, spool_folder, HoldSettlement, self._deliver, on_restart=self.renew)
        self._lease_ms = lease_ms
        self._renewal_ms = renewal_ms
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start to renew this process's holds and to send again what Redis may have lost."""
        renewal = Loop("renew holds", self.renew, self._renewal_ms / 1000)
        self._renewing = asyncio.create_task(run_loops([renewal]))
        self._outbox.start()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        """Stop. Holds that are still open expire by their lease."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None
        await self._outbox.close()

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Take a slot, its place in every window, and a hold on every budget; or take nothing.

        Admitting the same request again gives the same answer and takes nothing more.

        Raises:
            RateLimited: a rate or concurrency limit is reached; the message and headers say which and when to return.
            QuotaExceeded: a budget does not cover the worst case.
            BudgetInUse: a budget would cover it, were it not for other requests under way.
            PrincipalOutdated: the caller's key, project or organization was changed; look it up and ask again.
            Unavailable: Redis is down or not loaded yet, or this process cannot keep more usage events.
        """
        if self._outbox.full:
            raise Unavailable("Usage cannot be recorded right now. Please try again.", retry_after_s=5)
        limits = limits_of(request)
        claims = msgspec.structs.replace(request.claims, budgets=tuple(budget.name for budget in request.budgets))
        hold = hold_of(request, claims, limits)
        arguments = admit_arguments(request, hold, limits, lease_ms=self._lease_ms)
        try:
            reply = await self._missing.answer(hold.organization, request.budgets, lambda: self._ask(hold, arguments))
        except RedisError as error:
            self._leases.doubt(hold)
            raise not_available() from error
        if reply[0] == OUTDATED:
            raise PrincipalOutdated
        if reply[0] != OK:
            raise refusal(reply, request, limits)
        admitted = msgspec.structs.replace(claims, admitted_at_ms=reply[1])
        if hold.key not in self._leases:
            self._leases.add(hold.admitted(admitted))
        return Admitted(admitted, rates(reply[2:]))

    def settle(self, settled: Settled, cost: NanoDollars) -> "asyncio.Future[None]":
        """Release the request's hold, move `cost` to pending, and report its usage, exactly once however often called.

        A request that failed before its first byte is settled too: outcome FAILED, cost 0. Where the client left, only
        the ledger will know what was used: until then all that was held stays taken. Where Redis is away the event
        waits in the spool. What is returned ends when that is done; nobody needs to wait for it.
        """
        claims = settled.claims
        hold = self._leases.drop(key_of(claims))
        undecided = settled.outcome is Outcome.CLIENT_LEFT
        settlement = HoldSettlement(
            organization=claims.organization,
            key=key_of(claims),
            cost=hold.amount if undecided and hold is not None else checked_amount(cost),
            tokens=None if undecided else settled.usage.total_tokens,
            event=encode_event(settled),
            budgets=" ".join(claims.budgets),
            scopes="" if hold is None else hold.scopes,
        )
        return self._outbox.send(settlement)

    def keep(self, hold: Hold) -> None:
        """Renew a hold that Redis was not asked for: it takes it at the next renewal that reaches it."""
        self._leases.add(hold)

    @property
    def delivered(self) -> bool:
        """Whether Redis took everything that was settled here."""
        return self._outbox.empty

    async def renew(self) -> None:
        """Prolong every open hold of this process once; runs by itself while the admission is entered."""
        await self._leases.renew()

    def _deliver(self, settlement: HoldSettlement) -> "asyncio.Future[Any]":
        tag = bucket_tag(bucket_of(settlement.organization))
        return self._scripts.start(ScriptName.SETTLE, tag, settlement.arguments(), wait_s=SETTLE_WAIT_S)

    async def _ask(self, hold: Hold, arguments: list[Argument]) -> list[Any]:
        # Where the client leaves, the script may still run, so what it takes must be given back after that.
        left = partial(self._leases.doubt, hold)
        sent = self._scripts.start(ScriptName.ADMIT, bucket_tag(bucket_of(hold.organization)), arguments, left=left)
        try:
            reply: list[Any] = await sent
        except asyncio.CancelledError:
            if not sent.cancelled():  # the reply came in the same moment
                left()
            raise
        return reply
