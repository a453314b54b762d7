"""The live part of the gate: a new adapter must answer on a real replica, and answer otherwise than the base."""

import asyncio
import logging
import math
from collections.abc import Sequence
from itertools import combinations, product

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.replica import AdapterRefused, AdapterUnfit, Replica, ReplicaLost
from tokenyard.finetune.ports import CanaryClient, CanaryReplicas

_LOG = logging.getLogger(__name__)
CANARY_PROMPT = "The quick brown fox jumps over the lazy dog. Once upon a time, in a small village,"
# Each asks base and adapter side by side, in the same moment of the same replica.
ROUNDS = 3
TRIES = 3
# What else is in a batch changes how sums are rounded: two runs of the same weights differ by up to 0.05, on an idle
# replica by nothing. So an adapter must differ from its base by clearly more than the base differs from itself.
OVER_NOISE = 2.0


class CanaryFailed(Exception):
    """The adapter must not go live; the message says why, in words for its tenant."""


class SameAsBase(Exception):
    """Nothing tells the adapter from its base; the message says so, in words for its tenant."""


class NoReplica(Exception):
    """No replica could be asked now; the message says what is missing, in words for the tenant."""


class CanaryCheck:
    """Loads the adapter on the replica with the least to do, and compares its canary with the base's."""

    def __init__(self, replicas: CanaryReplicas, client: CanaryClient) -> None:
        self._replicas = replicas
        self._client = client

    async def check(self, base_model: str, adapter: AdapterRef) -> None:
        """Prove the adapter.

        Raises:
            CanaryFailed: it changes nothing, gives numbers that are none, or no replica can ever serve it.
            NoReplica: none to ask now; or the engine did not take it, which may be for lack of room.
        """
        replicas = sorted(await self._replicas.of(base_model), key=lambda replica: replica.running + replica.waiting)
        reason = "a replica of the base model"
        for replica in replicas:
            try:
                await self._prove(replica, adapter)
                return
            except ReplicaLost as lost:
                _LOG.warning("the canary of %s could not be asked of %s: %s", adapter.name, replica.name, lost)
            except AdapterUnfit as unfit:
                raise CanaryFailed(str(unfit)) from unfit
            except AdapterRefused as refused:
                _LOG.warning("%s did not take %s: %s", replica.name, adapter.name, refused)
                reason = "a replica that takes the new model"
        if not replicas:
            await self._replicas.call_for([base_model])
        raise NoReplica(reason)

    async def _prove(self, replica: Replica, adapter: AdapterRef) -> None:
        await self._client.load(replica, adapter)
        for left in reversed(range(TRIES)):
            base, tuned = await self._runs(replica, adapter)
            try:
                return compare_canaries(base, tuned)
            except SameAsBase as same:
                # Noise may have hidden a small difference; it cannot make one up.
                if not left:
                    raise CanaryFailed(str(same)) from None

    async def _runs(self, replica: Replica, adapter: AdapterRef) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
        base, tuned = [], []
        for _ in range(ROUNDS):
            ours, theirs = await asyncio.gather(
                self._client.canary(replica.url, adapter.name, CANARY_PROMPT),
                self._client.canary(replica.url, None, CANARY_PROMPT),
            )
            tuned.append(ours)
            base.append(theirs)
        return base, tuned


def compare_canaries(base: Sequence[Sequence[float]], tuned: Sequence[Sequence[float]]) -> None:
    """Compare several runs of both.

    Raises:
        SameAsBase: they differ by no more than noise.
        CanaryFailed: the adapter's log-probabilities are not numbers, or not as many as the base's.
    """
    if not all(math.isfinite(value) for run in tuned for value in run):
        raise CanaryFailed("The trained model gives probabilities that are not numbers.")
    if len({len(run) for run in (*base, *tuned)}) != 1 or not base[0]:
        raise CanaryFailed("The trained model does not answer the test prompt.")
    noise = max((_distance(*pair) for runs in (base, tuned) for pair in combinations(runs, 2)), default=0.0)
    difference = min(_distance(ours, theirs) for ours, theirs in product(tuned, base))
    if difference <= OVER_NOISE * noise:
        raise SameAsBase("The trained model answers exactly as its base model: it has learned nothing.")


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean difference over the tokens: single ones are noisier."""
    return sum(abs(ours - theirs) for ours, theirs in zip(one, other, strict=True)) / len(one)
