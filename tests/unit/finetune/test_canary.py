"""How the canary of an adapter is judged: against what the base differs from itself by."""

import math
import random
from collections.abc import Collection, Sequence

import pytest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.replica import Replica
from tokenyard.finetune.steps.canary import CanaryCheck, CanaryFailed, SameAsBase, compare_canaries

BASE = [-1.0, -2.5, -0.3]
TOKENS = 20
NOISE = 0.05


def test_an_adapter_that_changes_one_probability_passes() -> None:
    compare_canaries([BASE] * 3, [[-1.0, -2.4, -0.3]] * 3)


@pytest.mark.parametrize("tuned", [[], BASE[:2], [-1.0, math.nan, -0.3], [-math.inf, -2.0, -0.3]])
def test_what_is_no_answer_is_refused(tuned: list[float]) -> None:
    with pytest.raises(CanaryFailed):
        compare_canaries([BASE] * 3, [BASE, tuned, BASE])


def test_an_adapter_that_changes_nothing_is_the_base() -> None:
    with pytest.raises(SameAsBase):
        compare_canaries([BASE] * 3, [BASE] * 3)


def test_an_empty_canary_proves_nothing() -> None:
    with pytest.raises(CanaryFailed):
        compare_canaries([[]], [[]])


class NoisyReplica:
    """Answers as a busy replica does: sometimes with other roundings. Its adapter moves each token by `shift`."""

    def __init__(self, seed: int, shift: float) -> None:
        self._chance = random.Random(seed)
        self._shift = shift

    async def of(self, model: str) -> Sequence[Replica]:
        return [Replica("replica-1", model, "http://replica-1")]

    async def call_for(self, models: Collection[str]) -> None:
        pass

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        return

    async def canary(self, url: str, adapter: str | None, prompt: str) -> Sequence[float]:
        alone = self._chance.random() < 0.3
        noise = [0.0 if alone else self._chance.uniform(-NOISE, NOISE) for _ in range(TOKENS)]
        return [-1.0 - (self._shift if adapter else 0.0) + one for one in noise]


async def proves(seed: int, shift: float) -> bool:
    replica = NoisyReplica(seed, shift)
    adapter = AdapterRef(AdapterId("a"), "ft:tiny:org:x:a", "adapters/org/a", "0" * 64)
    try:
        await CanaryCheck(replica, replica).check("tiny", adapter)
    except CanaryFailed:
        return False
    return True


async def test_noise_never_passes_for_a_difference() -> None:
    assert not any([await proves(seed, 0.0) for seed in range(300)])


async def test_a_trained_adapter_is_told_from_noise() -> None:
    assert all([await proves(seed, 2 * NOISE) for seed in range(300)])
