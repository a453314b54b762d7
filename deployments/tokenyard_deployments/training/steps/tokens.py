"""How many tokens are trained on up to each step: of the rows alone, whatever pads them and whoever trains on them."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from tokenyard_deployments.training.steps.order import RowOrder

TokenCount = Callable[[Any], int]
"""Returns the tokens of all steps so far, by the state of a trainer."""


def row_count(order: RowOrder) -> TokenCount:
    """Return the count of training that takes each row once an epoch."""
    tokens = StepTokens(order)
    return lambda state: tokens.upto(state.global_step)


def generated_count(state: Any) -> int:
    """Count prompts and answers as they were generated, by whichever worker: the trainer's state has their sum."""
    return int(state.num_input_tokens_seen)


class StepTokens:
    """Counts each row of each step once."""

    def __init__(self, order: RowOrder) -> None:
        self._order = order
        self._epoch = -1
        self._sums: list[int] = []

    def upto(self, step: int) -> int:
        """Return the tokens of the first `step` steps."""
        epoch, steps = divmod(step, self._order.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._sums = epoch, self._sums_of(epoch)
        rows = min(steps * self._order.rows_a_step, len(self._order.row_tokens))
        return epoch * self._sums[-1] + self._sums[rows]

    def _sums_of(self, epoch: int) -> list[int]:
        tokens = self._order.row_tokens
        return list(accumulate((tokens[row] for row in self._order.of_epoch(epoch)), initial=0))
