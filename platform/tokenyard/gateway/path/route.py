"""Stage 4: which replica; a second one only while the client has been sent nothing.

It goes where most of the request is held already, adapter and prompt, among the replicas that are not busier than the
others and of which its organization has not had more than of the others. See ADR 30.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import WakingBounds
from tokenyard.core.replica import Replica, ReplicaLoad
from tokenyard.gateway.ports import Replicas
from tokenyard.gateway.routing.choice import best, homes, less_busy_of_two, unless_busier, within_bound
from tokenyard.gateway.routing.credits import ANSWER_WEIGHT, ReplicaCredits
from tokenyard.gateway.routing.loads import LoadBook, ReplicaWork
from tokenyard.gateway.routing.prefixes import PrefixIndex, common_key, model_key, prefix_keys, tokens_of
from tokenyard.gateway.routing.waking import WakingQueue

MAX_ATTEMPTS = 2
NO_REPLICA_RETRY_AFTER_S = 5.0
RESIDENT_TOKENS = 1024
"""To hold the adapter saves about as much time as so many tokens of a prompt that need not be computed."""
SENT_TOKENS = RESIDENT_TOKENS // 2
"""Who was sent the adapter holds it soon, or has dropped it again."""
HINTED_TOKENS = 128
"""The client's own hint counts where nothing else tells."""


class RoutedRequest(NamedTuple):
    """What matters of a request here. `body` is what a replica is sent; `prompt_tokens` are about so many.

    `waking` is None for a model that never sleeps; `cache_key` is the client's own hint, or empty.
    """

    organization: OrganizationId
    salt: str
    base_model: str
    adapter: str | None
    body: bytes
    sequences: int
    prompt_tokens: int
    waking: WakingBounds | None = None
    cache_key: str = ""


class Route:
    """One attempt at a replica, under way within `with`; `tokens` is what it is made to compute of the prompts.

    `spend` is told what else the organization had of it, in tokens of prompts.
    """

    __slots__ = ("_now", "_sequences", "_spend", "_tokens", "_waits", "_work", "replica")

    def __init__(
        self,
        replica: Replica,
        work: ReplicaWork,
        sequences: int,
        tokens: int,
        *,
        now: Callable[[], float],
        spend: Callable[[int], None] | None = None,
    ) -> None:
        self.replica = replica
        self._work = work
        self._sequences = sequences
        self._now = now
        self._spend = spend
        self._tokens = tokens
        self._waits = True

    def __enter__(self) -> "Route":
        self._work.sequences += self._sequences
        self._work.tokens += self._tokens
        return self

    def __exit__(self, *_raised: object) -> None:
        self._waits_no_more()
        self._work.sequences -= self._sequences

    def began(self, load: ReplicaLoad | None) -> None:
        """The answer begins; `load` is what the replica says of itself."""
        self._waits_no_more()
        if load is not None:
            self._work.told(load, self._now())

    def made(self, completion_tokens: int) -> None:
        """So much came of the answer."""
        if self._spend is not None:
            self._spend(ANSWER_WEIGHT * completion_tokens)

    def _waits_no_more(self) -> None:
        if self._waits:
            self._waits = False
            self._work.tokens -= self._tokens


class ReplicaRouter:
    """Picks replicas; remembers what it sent where, and what it heard of their loads. `chance` is from 0 to below 1."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._replicas = replicas
        self._chance = chance
        self._now = now
        self._loads = LoadBook(now)
        self._sent = PrefixIndex()
        self._credits = ReplicaCredits()
        self._waking = WakingQueue(replicas)

    @property
    def waiting(self) -> int:
        """How many requests wait for a model to wake up."""
        return self._waking.requests

    def pick(self, request: RoutedRequest, tried: Sequence[str]) -> Route | None:
        """Return the way to the best replica that is not in `tried`, or None."""
        offered = self._replicas.candidates(request.base_model)
        if tried:
            offered = [one for one in offered if one.name not in tried]
        if len(offered) > 1:
            return self._chosen(request, offered)
        if not offered:
            return None
        work = self._loads.of(offered[0])
        return Route(offered[0], work, request.sequences, request.prompt_tokens, now=self._now)

    async def woken(self, request: RoutedRequest, tried: Sequence[str]) -> Route | None:
        """Wake the model where it sleeps, and return the way to its first replica; None where it never sleeps.

        Raises:
            RateLimited: too much of the organization's waits for it.
            Unavailable: too much of all does, or no replica came in time.
        """
        if request.waking is None:
            return None
        look = partial(self.pick, request, tried)
        return await self._waking.wait(request.base_model, request.waking, request.organization, look)

    def wake(self, request: RoutedRequest) -> None:
        """Wake the model where it sleeps; nobody waits for it."""
        if request.waking is not None:
            self._replicas.call_for(request.base_model)

    def eject(self, replica: Replica) -> None:
        self._replicas.eject(replica.name)

    def _chosen(self, request: RoutedRequest, offered: Sequence[Replica]) -> Route:
        works = {one.name: self._loads.of(one) for one in offered}
        pressures = {name: work.pressure for name, work in works.items()}
        model = model_key(request.salt, request.adapter or request.base_model)
        blocks = prefix_keys(request.body, model)
        matched = self._sent.matched(blocks)
        computed = {name: tokens_of(number) for name, number in matched.items()}
        scores = computed if request.adapter is None else self._with_adapter(request.adapter, model, computed, works)
        hints = [hash((model, request.cache_key))] if request.cache_key else []
        for held in self._sent.matched(hints):
            scores[held] = scores.get(held, 0) + HINTED_TOKENS
        names = self._credits.with_credit(request.organization, within_bound(pressures))
        nearest = best(names, scores)
        name = None if scores.get(nearest[0]) else self._first_home(request, nearest, works, pressures)
        name = name or less_busy_of_two(nearest, pressures, self._chance)
        self._sent.note([*hints, *blocks] if request.adapter is None else [*hints, model, *blocks], name)
        tokens = max(0, request.prompt_tokens - tokens_of(matched.get(name, 0)))
        spend = partial(self._credits.spend, request.organization, name)
        spend(tokens)
        replica = next(one for one in offered if one.name == name)
        return Route(replica, works[name], request.sequences, tokens, now=self._now, spend=spend)

    def _with_adapter(
        self, adapter: str, model: int, computed: Mapping[str, int], works: Mapping[str, ReplicaWork]
    ) -> dict[str, int]:
        sent = self._sent.matched((model,))
        return {
            name: computed.get(name, 0) + (RESIDENT_TOKENS if adapter in work.adapters else SENT_TOKENS)
            for name, work in works.items()
            if adapter in work.adapters or name in sent
        }

    def _first_home(
        self,
        request: RoutedRequest,
        names: Sequence[str],
        works: Mapping[str, ReplicaWork],
        pressures: Mapping[str, float],
    ) -> str | None:
        """Return where what nobody holds yet begins: at the same place for all gateways, so others need not hold it.

        None where the request has nothing that another one could find.
        """
        model = request.adapter or request.base_model
        of_model = request.adapter is not None
        key = common_key(request.body, request.salt, model, of_model=of_model, hint=request.cache_key)
        if key is None or len(names) == 1:
            return None
        first, second = homes(key, names)
        if request.adapter is not None and len(works[second].adapters) < len(works[first].adapters):
            first, second = second, first  # there it takes nobody's place
        return unless_busier(first, second, pressures)


def no_replica(model: str) -> Unavailable:
    """Return the error for a model that nothing serves at the moment."""
    return Unavailable(
        f"No server for the model '{model}' is ready. Please try again shortly.", retry_after_s=NO_REPLICA_RETRY_AFTER_S
    )
