"""What one worker reads of each step: its part of the rows, in passes that fit its memory.

Libraries that share rows between workers fill up with rows of the beginning, which are then learnt twice. Here a place
that is left over is blank: a row with nothing to learn, so that every row is learnt once, and a step is the same
whoever takes part in it.
"""

from collections.abc import Iterator

from tokenyard_deployments.training.steps.order import RowOrder


class WorkerPasses:
    """Of all workers, each pass has equally many places. The blank row's number is that after the last row."""

    def __init__(self, order: RowOrder, *, rank: int, workers: int, rows_a_pass: int) -> None:
        self.order = order
        self.workers = workers
        self._rank = rank
        self._rows_a_pass = rows_a_pass
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        steps = self.order.steps_per_epoch
        return sum(-(-self._places(self.order.rows_of_step(step)) // self._rows_a_pass) for step in range(steps))

    def __iter__(self) -> Iterator[list[int]]:
        rows, blank = self.order.of_epoch(self._epoch), len(self.order.row_tokens)
        for begin in range(0, len(rows), self.order.rows_a_step):
            step = rows[begin : begin + self.order.rows_a_step]
            places = self._places(len(step))
            mine = step[self._rank :: self.workers]
            mine += [blank] * (places - len(mine))
            for first in range(0, places, self._rows_a_pass):
                yield mine[first : first + self._rows_a_pass]

    def _places(self, rows: int) -> int:
        return -(-rows // self.workers)
