"""How many tokens are trained on up to each step: of the rows alone, whatever pads them and whoever trains on them."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]

TokenCount = Callable[[Any, Any], int]
"""Returns the tokens of all steps so far, by the arguments and the state of a trainer."""


def row_count(row_tokens: Sequence[int], seed: int) -> TokenCount:
    """Return the count of training that takes each row of the training set once an epoch, as `StepTokens` says."""

    @cache
    def steps(rows_a_step: int) -> StepTokens:
        return StepTokens(row_tokens, rows_a_step=rows_a_step, seed=seed)

    def count(args: Any, state: Any) -> int:
        rows_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return steps(rows_a_step).upto(state.global_step)

    return count


def generated_count(_args: Any, state: Any) -> int:
    """Count prompts and answers as they were generated, by whichever worker: the trainer's state has their sum."""
    return int(state.num_input_tokens_seen)


class StepTokens:
    """`row_tokens` are the tokens of each row, `seed` is that of the order in which the trainer takes them.

    A step takes `rows_a_step` rows over all workers; an epoch's last one takes what is left. Where workers would not
    get equally many, some rows are trained on twice, and count once.
    """

    def __init__(self, row_tokens: Sequence[int], *, rows_a_step: int, seed: int) -> None:
        self._row_tokens = row_tokens
        self._rows_a_step = rows_a_step
        self._sampler = SeedableRandomSampler(range(len(row_tokens)), data_seed=seed)
        self._epoch = -1
        self._sums: list[int] = []

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._row_tokens) // self._rows_a_step)

    def upto(self, step: int) -> int:
        """Return the tokens of the first `step` steps."""
        epoch, steps = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._sums = epoch, self._sums_of(epoch)
        rows = min(steps * self._rows_a_step, len(self._row_tokens))
        return epoch * self._sums[-1] + self._sums[rows]

    def _sums_of(self, epoch: int) -> list[int]:
        self._sampler.set_epoch(epoch)
        return list(accumulate((self._row_tokens[row] for row in self._sampler), initial=0))
