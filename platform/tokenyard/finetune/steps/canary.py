"""The live part of the gate: a new adapter must answer on a real replica, and answer otherwise than the base."""

import logging
import math
from collections.abc import Sequence

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.replica import AdapterRefused, Replica, ReplicaLost
from tokenyard.finetune.ports import CanaryClient, CanaryReplicas

_LOG = logging.getLogger(__name__)
CANARY_PROMPT = "The quick brown fox jumps over the lazy dog. Once upon a time, in a small village,"
# Below this, two runs of the same weights differ by rounding; a trained adapter moves log-probabilities far more.
MIN_DIFFERENCE = 1e-4


class CanaryFailed(Exception):
    """The adapter must not go live; the message says why, in words for its tenant."""


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
            CanaryFailed: it changes nothing, or gives numbers that are none.
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
            except AdapterRefused as refused:
                _LOG.warning("%s did not take %s: %s", replica.name, adapter.name, refused)
                reason = "a replica that takes the new model"
        raise NoReplica(reason)

    async def _prove(self, replica: Replica, adapter: AdapterRef) -> None:
        await self._client.load(replica, adapter)
        base = await self._client.canary(replica.url, None, CANARY_PROMPT)
        tuned = await self._client.canary(replica.url, adapter.name, CANARY_PROMPT)
        compare_canaries(base, tuned)


def compare_canaries(base: Sequence[float], tuned: Sequence[float]) -> None:
    """Raise `CanaryFailed` where the adapter's log-probabilities are not numbers, or are the base's."""
    if not all(math.isfinite(value) for value in tuned):
        raise CanaryFailed("The trained model gives probabilities that are not numbers.")
    if not base or len(base) != len(tuned):
        raise CanaryFailed("The trained model does not answer the test prompt.")
    if max(abs(ours - theirs) for ours, theirs in zip(tuned, base, strict=True)) < MIN_DIFFERENCE:
        raise CanaryFailed("The trained model answers exactly as its base model: it has learned nothing.")
