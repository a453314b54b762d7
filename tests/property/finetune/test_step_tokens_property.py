"""The tokens of steps: whatever the rows, the batch and the workers are, nothing is counted twice or left out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("accelerate")
from tokenyard_deployments.training.steps.order import RowOrder
from tokenyard_deployments.training.steps.passes import WorkerPasses
from tokenyard_deployments.training.steps.tokens import StepTokens

ROWS = st.lists(st.integers(1, 2048), min_size=1, max_size=40)


@given(ROWS, st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31 - 1), st.booleans())
def test_all_steps_together_are_every_row_once_an_epoch(
    rows: list[int], batch: int, epochs: int, seed: int, by_length: bool
) -> None:
    order = RowOrder(rows, rows_a_step=batch, seed=seed, by_length=by_length)
    tokens = StepTokens(order)
    sums = [tokens.upto(step) for step in range(epochs * order.steps_per_epoch + 1)]
    assert sums[0] == 0
    assert sums[-1] == epochs * sum(rows)
    assert all(before < after for before, after in pairwise(sums))
    assert sums[:: order.steps_per_epoch] == [epoch * sum(rows) for epoch in range(epochs + 1)]


@given(ROWS, st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_steps_by_length_are_no_more_apart_than_their_neighbours(rows: list[int], batch: int, seed: int) -> None:
    """All rows are few enough to be sorted together: no row lies between two of another step."""
    order = RowOrder(rows, rows_a_step=batch, seed=seed, by_length=True)
    for epoch in range(2):
        taken = order.of_epoch(epoch)
        assert sorted(taken) == list(range(len(rows)))
        assert taken == RowOrder(rows, rows_a_step=batch, seed=seed, by_length=True).of_epoch(epoch)
        steps = [[rows[row] for row in taken[at : at + batch]] for at in range(0, len(taken), batch)]
        spans = sorted((min(step), max(step)) for step in steps)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


@given(ROWS, st.integers(1, 12), st.integers(0, 2**31 - 1), st.data())
def test_a_step_counts_the_same_after_whatever_was_asked_before(
    rows: list[int], batch: int, seed: int, data: st.DataObject
) -> None:
    order = RowOrder(rows, rows_a_step=batch, seed=seed)
    asked, fresh = StepTokens(order), StepTokens(order)
    steps = data.draw(st.lists(st.integers(0, 3 * order.steps_per_epoch), min_size=1, max_size=8))
    for step in steps:
        found = asked.upto(step)
    assert found == fresh.upto(steps[-1])


@given(ROWS, st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_workers_share_each_step_evenly_and_read_each_row_once(
    rows: list[int], batch: int, workers: int, rows_a_pass: int, seed: int
) -> None:
    order = RowOrder(rows, rows_a_step=batch, seed=seed)
    shares = [WorkerPasses(order, rank=rank, workers=workers, rows_a_pass=rows_a_pass) for rank in range(workers)]
    for epoch in range(2):
        for passes in shares:
            passes.set_epoch(epoch)
        read = [list(passes) for passes in shares]
        assert {len(passes) for passes in shares} == {len(read[0])}
        assert all(len({len(one) for one in together}) == 1 for together in zip(*read, strict=True))
        blank = len(rows)
        places = [place for passes in read for one in passes for place in one]
        assert sorted(place for place in places if place != blank) == list(range(len(rows)))
        assert places.count(blank) < workers * order.steps_per_epoch, "at most one place of a worker is blank in a step"
        _check_steps(order, epoch, read)


def _check_steps(order: RowOrder, epoch: int, read: list[list[list[int]]]) -> None:
    """Tell that together the workers read the rows of one step before those of the next."""
    whole, at = order.of_epoch(epoch), 0
    for step in range(order.steps_per_epoch):
        expected = order.rows_of_step(step)
        found: list[int] = []
        while len(found) < expected:
            found += [row for passes in read for row in passes[at] if row != len(whole)]
            at += 1
        begin = step * order.rows_a_step
        assert sorted(found) == sorted(whole[begin : begin + expected])
    assert at == len(read[0])
