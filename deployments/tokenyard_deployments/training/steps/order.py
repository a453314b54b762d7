"""Which rows each step takes: it follows from the rows and the seed, whoever trains on them and however often."""

from collections.abc import Sequence

from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]


class RowOrder:
    """Each row once an epoch. A step takes `rows_a_step` rows over all workers; an epoch's last one what is left."""

    def __init__(self, row_tokens: Sequence[int], *, rows_a_step: int, seed: int) -> None:
        """`row_tokens` are the tokens of each row."""
        self.row_tokens = row_tokens
        self.rows_a_step = rows_a_step
        self._seed = seed

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.row_tokens) // self.rows_a_step)

    def rows_of_step(self, step: int) -> int:
        """Return how many rows the step takes that comes after `step` steps."""
        taken = step % self.steps_per_epoch * self.rows_a_step
        return min(self.rows_a_step, len(self.row_tokens) - taken)

    def of_epoch(self, epoch: int) -> list[int]:
        """Return the rows in the order in which the steps of an epoch take them."""
        return self._shuffled(len(self.row_tokens), epoch)

    def _shuffled(self, count: int, epoch: int) -> list[int]:
        sampler = SeedableRandomSampler(range(count), data_seed=self._seed)
        sampler.set_epoch(epoch)
        return list(sampler)
