"""How the canary of an adapter is judged."""

import math

import pytest

from tokenyard.finetune.steps.canary import CanaryFailed, compare_canaries

BASE = [-1.0, -2.5, -0.3]


def test_an_adapter_that_changes_one_probability_passes() -> None:
    compare_canaries(BASE, [-1.0, -2.4, -0.3])


@pytest.mark.parametrize(
    "tuned", [BASE, [value + 1e-6 for value in BASE], [], BASE[:2], [-1.0, math.nan, -0.3], [-math.inf, -2.0, -0.3]]
)
def test_all_others_are_refused(tuned: list[float]) -> None:
    with pytest.raises(CanaryFailed):
        compare_canaries(BASE, tuned)


def test_an_empty_canary_proves_nothing() -> None:
    with pytest.raises(CanaryFailed):
        compare_canaries([], [])
