"""Admission to the engine: lets a request in at once, or refuses it and says when to come back. Nobody waits here.

Who runs next is the engine's own decision. This bounds what it has to decide about: sequences and tokens, for each
organization and in all.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tokenyard.core.errors import RateLimited, TokenyardError, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.serving.front.pace import Pace, Work
from tokenyard_deployments.serving.front.request_body import Load
from tokenyard_deployments.serving.shares import Shares

MIN_RETRY_S = 1.0
MAX_RETRY_S = 600.0
# An estimate takes milliseconds; a refusal must stay cheap, also where they come by the thousand.
_ESTIMATE_HOLDS_S = 0.1


class RequestProgress(Protocol):
    """What the engine has done of a request so far."""

    @property
    def made(self) -> int:
        """Tokens, over all its sequences: those it generated, and of embeddings those of the prompts."""

    @property
    def running(self) -> int:
        """Sequences that have begun and not ended."""

    @property
    def aborted(self) -> bool:
        """Whether it was cut before its end."""


class EngineBounds(NamedTuple):
    """`sequences` and `tokens` are what one organization alone may have inside (see `Shares`)."""

    slots: int
    sequences: int
    tokens: int

    @classmethod
    def of(cls, spec: ModelSpec, slots: int) -> "EngineBounds":
        """One alone fills all slots with requests of any length, and has a third of what may wait."""
        running = slots * spec.context_length
        return cls(
            slots,
            sequences=max(slots, (slots + spec.max_waiting) // 3),
            tokens=max(running, (running + spec.waiting_tokens) // 3),
        )


@dataclass(eq=False)
class _RequestInside:
    organization: OrganizationId
    load: Load
    progress: RequestProgress


class EngineAdmission:
    """What is inside, and whether more may come."""

    def __init__(self, bounds: EngineBounds, now: Callable[[], float] = time.monotonic) -> None:
        self._slots = bounds.slots
        self._sequences = Shares(bounds.sequences)
        self._tokens = Shares(bounds.tokens)
        self._now = now
        self._inside: dict[_RequestInside, None] = {}  # in the order in which they came
        self._pace = Pace()
        self._made_by_those_gone = 0
        self._estimates: dict[tuple[OrganizationId, int], tuple[float, float]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.busy_since: float | None = None
        """When the first of those inside came; None where nobody is."""

    @property
    def sequences(self) -> int:
        """How many are inside."""
        return sum(visitor.load.sequences for visitor in self._inside)

    @property
    def tokens(self) -> int:
        """How many tokens they hold, all at their longest."""
        return sum(visitor.load.tokens for visitor in self._inside)

    @contextmanager
    def enter(self, organization: OrganizationId, load: Load, progress: RequestProgress) -> Iterator[None]:
        """Be inside meanwhile.

        Raises:
            RateLimited: the organization has as much inside as it may have beside the others.
            Unavailable: the others have so much inside that there is no room.
        """
        if not self.has_room(organization, load):
            raise self._refusal(organization, load)
        visitor = _RequestInside(organization, load, progress)
        self._come(visitor)
        try:
            yield
        finally:
            self._go(visitor)

    def has_room(self, organization: OrganizationId, load: Load) -> bool:
        """Tell whether a request would be let in now."""
        return not any(self._lacking(organization, load))

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()

    def retry_after_s(self, organization: OrganizationId, load: Load) -> float:
        """Return in how many seconds a request of this kind will be let in, at the pace of late."""
        now, kind = self._now(), (organization, load.sequences)
        at, seconds = self._estimates.get(kind, (float("-inf"), 0.0))
        if now - at >= _ESTIMATE_HOLDS_S:
            seconds = self._estimate(organization, load)
            self._estimates = {key: one for key, one in self._estimates.items() if now - one[0] < _ESTIMATE_HOLDS_S}
            self._estimates[kind] = now, seconds
        return min(max(seconds, MIN_RETRY_S), MAX_RETRY_S)

    def _lacking(self, organization: OrganizationId, load: Load) -> tuple[int, int]:
        return (
            self._sequences.lacking(organization, load.sequences),
            self._tokens.lacking(organization, load.tokens),
        )

    def _waits_for_itself(self, organization: OrganizationId, load: Load) -> bool:
        sequences, tokens = self._lacking(organization, load)
        return (bool(sequences) and self._sequences.over_its_part(organization, load.sequences)) or (
            bool(tokens) and self._tokens.over_its_part(organization, load.tokens)
        )

    def _refusal(self, organization: OrganizationId, load: Load) -> TokenyardError:
        retry_after_s = self.retry_after_s(organization, load)
        if self._waits_for_itself(organization, load):
            return RateLimited(
                "Your organization has as many requests under way on this model as it may have. Please slow down.",
                code="slow_down",
                retry_after_s=retry_after_s,
            )
        return Unavailable("The model is overloaded. Please try again shortly.", retry_after_s=retry_after_s)

    def _come(self, visitor: _RequestInside) -> None:
        if not self._inside:
            self.busy_since = self._now()
        self._sequences.take(visitor.organization, visitor.load.sequences)
        self._tokens.take(visitor.organization, visitor.load.tokens)
        self._inside[visitor] = None
        self._empty.clear()
        self._sample()

    def _go(self, visitor: _RequestInside) -> None:
        self._sample()
        del self._inside[visitor]
        self._sequences.give_back(visitor.organization, visitor.load.sequences)
        self._tokens.give_back(visitor.organization, visitor.load.tokens)
        self._made_by_those_gone += visitor.progress.made
        if visitor.progress.made and not visitor.progress.aborted:
            self._pace.answered(visitor.progress.made, visitor.load.answer_tokens)
        if not self._inside:
            self.busy_since = None
            self._pace.rest()
            self._empty.set()

    def _sample(self) -> None:
        now = self._now()
        if self._pace.due(now):
            made = self._made_by_those_gone + sum(visitor.progress.made for visitor in self._inside)
            running = sum(visitor.progress.running for visitor in self._inside)
            # Of a prompt to be embedded it is not known whether it has begun.
            self._pace.sample(now, made, min(running, self._slots))

    def _estimate(self, organization: OrganizationId, load: Load) -> float:
        self._sample()
        works = [self._work(visitor, organization) for visitor in self._inside]
        return self._pace.seconds_until(works, self._lacking(organization, load), self._slots)

    def _work(self, visitor: _RequestInside, newcomer: OrganizationId) -> Work:
        load, own = visitor.load, visitor.organization == newcomer
        return Work(
            organization=visitor.organization,
            sequences=load.sequences,
            running=min(visitor.progress.running, load.sequences),
            at_most=load.answer_tokens,
            made=visitor.progress.made,
            gains=(
                self._sequences.gains(newcomer, load.sequences, own=own),
                self._tokens.gains(newcomer, load.tokens, own=own),
            ),
        )
