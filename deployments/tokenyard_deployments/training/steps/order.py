"""Which rows each step takes: it follows from the rows and the seed, whoever trains on them and however often."""

from collections.abc import Sequence

from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]

from tokenyard.core.training import TrainingSpec

_STEPS_TOGETHER = 50


class RowOrder:
    """Each row once an epoch. A step takes `rows_a_step` rows over all workers; an epoch's last one what is left."""

    def __init__(self, row_tokens: Sequence[int], *, rows_a_step: int, seed: int, by_length: bool = False) -> None:
        """`row_tokens` are the tokens of each row; with `by_length` a step has rows of about the same length."""
        self.row_tokens = row_tokens
        self.rows_a_step = rows_a_step
        self._seed = seed
        self._by_length = by_length

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.row_tokens) // self.rows_a_step)

    def rows_of_step(self, step: int) -> int:
        """Return how many rows the step takes that comes after `step` steps."""
        taken = step % self.steps_per_epoch * self.rows_a_step
        return min(self.rows_a_step, len(self.row_tokens) - taken)

    def of_epoch(self, epoch: int) -> list[int]:
        """Return the rows in the order in which the steps of an epoch take them."""
        rows = self._shuffled(len(self.row_tokens), epoch)
        return self._grouped(rows, epoch) if self._by_length else rows

    def _grouped(self, rows: Sequence[int], epoch: int) -> list[int]:
        """Sort within the rows of some steps at a time, so that who comes together with whom is still left to chance;
        and let the steps come in any order, as one of short rows after the other would teach badly.
        """
        size, together = self.rows_a_step, self.rows_a_step * _STEPS_TOGETHER
        groups = [rows[begin : begin + together] for begin in range(0, len(rows), together)]
        sorted_rows = [row for group in groups for row in sorted(group, key=self.row_tokens.__getitem__)]
        full = len(rows) // size
        steps = self._shuffled(full, epoch) if full else []
        found = [row for step in steps for row in sorted_rows[step * size : (step + 1) * size]]
        return found + sorted_rows[full * size :]

    def _shuffled(self, count: int, epoch: int) -> list[int]:
        sampler = SeedableRandomSampler(range(count), data_seed=self._seed)
        sampler.set_epoch(epoch)
        return list(sampler)


def row_order(spec: TrainingSpec, row_tokens: Sequence[int]) -> RowOrder:
    """Return the order that a spec asks for."""
    wanted = spec.hyperparameters
    by_length = wanted.group_by_length or False
    return RowOrder(row_tokens, rows_a_step=wanted.batch_size, seed=spec.seed, by_length=by_length)
