"""Admission that goes on while Redis is away, for organizations whose plan has a local share (ADR 25)."""

import asyncio
import logging
import math
import time
from functools import partial

import msgspec
from prometheus_client import CollectorRegistry, Counter
from redis.exceptions import AuthenticationError, AuthorizationError, ClusterDownError, MaxConnectionsError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenyard.core.admission import AdmissionRequest, Admitted, RateHeaders
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import LocalShare
from tokenyard.limits.holds import hold_of, key_of, limits_of
from tokenyard.limits.local_share import LocalGrants
from tokenyard.limits.ports import HoldingAdmission
from tokenyard.metering.events import Outcome, Settled

_LOG = logging.getLogger(__name__)
QUIET_S = 60.0  # so long without a local grant, and the next one is told as a new outage

_NO_REDIS = (RedisConnectionError, RedisTimeoutError, ClusterDownError)
_OURS_TO_MEND = (AuthenticationError, AuthorizationError, MaxConnectionsError)  # redis-py's kinds of ConnectionError


class OutageAdmission:
    """`RedisAdmission`, and where no Redis answers what is left of this process's share.

    What is let in by the share is held, metered and settled like all else: Redis takes the hold, or the settlement,
    when it is back, and until then it waits here.
    """

    def __init__(self, admission: HoldingAdmission, clock: Clock, registry: CollectorRegistry) -> None:
        self._admission = admission
        self._clock = clock
        self._grants = LocalGrants()
        self._has_met_redis = False
        self._granted_at = -math.inf
        about = "Requests while Redis was away that a plan's local share let in, or was used up for."
        self._requests = Counter("tokenyard_local_share_requests", about, ("outcome",), registry=registry)

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Do as `RedisAdmission.admit` does, and raise what it raises."""
        organization = request.claims.organization
        # Looked at before Redis is asked: only what it knew then is covered where it admits.
        ended = self._grants.ended(organization)
        known = ended is not None and self._admission.delivered
        try:
            admitted = await self._admission.admit(request)
        except Unavailable as error:
            share = request.principal.local_share
            if share is None or not _is_away(error.__cause__) or not self._is_granted(request, share):
                raise
            return self._let_in(request)
        self._has_met_redis = True
        if ended is not None and known:
            self._grants.renew(organization, ended)
        return admitted

    def settle(self, settled: Settled, cost: NanoDollars) -> "asyncio.Future[None]":
        """Do as `RedisAdmission.settle` does."""
        done = self._admission.settle(settled, cost)
        if key_of(settled.claims) in self._grants:
            done.add_done_callback(partial(self._end, settled, cost))
        return done

    def _end(self, settled: Settled, cost: NanoDollars, done: "asyncio.Future[None]") -> None:
        if done.cancelled() or done.exception() is not None:
            return  # what it took stays taken
        undecided = settled.outcome is Outcome.CLIENT_LEFT
        self._grants.end(
            key_of(settled.claims),
            tokens=None if undecided else settled.usage.total_tokens,
            cost=None if undecided else cost,
        )

    def _is_granted(self, request: AdmissionRequest, share: LocalShare) -> bool:
        """Take it from the share. A process that never met Redis has none, or each start in an outage gave another."""
        granted = self._has_met_redis and self._grants.grant(request, share)
        self._requests.labels("granted" if granted else "refused").inc()
        return granted

    def _let_in(self, request: AdmissionRequest) -> Admitted:
        self._note_outage()
        budgets = tuple(budget.name for budget in request.budgets)
        claims = msgspec.structs.replace(request.claims, admitted_at_ms=self._clock.now_ms(), budgets=budgets)
        self._admission.keep(hold_of(request, claims, limits_of(request)))
        return Admitted(claims, RateHeaders())

    def _note_outage(self) -> None:
        now = time.monotonic()
        if now - self._granted_at > QUIET_S:
            _LOG.warning("Redis is away: organizations whose plan says so go on with this process's share of limits")
            self._grants.forget()
        self._granted_at = now


def _is_away(cause: BaseException | None) -> bool:
    """Tell a Redis that does not answer from one that refuses."""
    return isinstance(cause, _NO_REDIS) and not isinstance(cause, _OURS_TO_MEND)
