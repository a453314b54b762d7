"""The tokens of steps: whatever the rows, the batch and the workers are, nothing is counted twice or left out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("accelerate")
from tokenyard_deployments.training.step_tokens import StepTokens

ROWS = st.lists(st.integers(1, 2048), min_size=1, max_size=40)


@given(ROWS, st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_all_steps_together_are_every_row_once_an_epoch(rows: list[int], batch: int, epochs: int, seed: int) -> None:
    tokens = StepTokens(rows, rows_a_step=batch, seed=seed)
    sums = [tokens.upto(step) for step in range(epochs * tokens.steps_per_epoch + 1)]
    assert sums[0] == 0
    assert sums[-1] == epochs * sum(rows)
    assert all(before < after for before, after in pairwise(sums))
    assert sums[:: tokens.steps_per_epoch] == [epoch * sum(rows) for epoch in range(epochs + 1)]


@given(ROWS, st.integers(1, 12), st.integers(0, 2**31 - 1), st.data())
def test_a_step_counts_the_same_after_whatever_was_asked_before(
    rows: list[int], batch: int, seed: int, data: st.DataObject
) -> None:
    asked, fresh = (StepTokens(rows, rows_a_step=batch, seed=seed) for _ in range(2))
    steps = data.draw(st.lists(st.integers(0, 3 * asked.steps_per_epoch), min_size=1, max_size=8))
    for step in steps:
        found = asked.upto(step)
    assert found == fresh.upto(steps[-1])
