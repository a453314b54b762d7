"""What one worker reads of each step: its part of the rows, in passes that fit its memory.

Libraries that share rows between workers fill up with rows of the beginning, which are then learnt twice. Here a place
that is left over is blank: a row with nothing to learn, so that every row is learnt once, and a step is the same
whoever takes part in it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from tokenyard_deployments.training.steps.order import RowOrder


class WorkerPasses(Sampler[list[int]]):
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


class _RowsAndBlank(Dataset[Any]):
    def __init__(self, rows: Any, blank: Mapping[str, Any]) -> None:
        self._rows = rows
        self._blank = blank

    def __len__(self) -> int:
        return len(self._rows) + 1

    def __getitem__(self, index: int) -> Any:
        return self._blank if index == len(self._rows) else self._rows[index]


class _PassLoader(DataLoader[Any]):
    """Passes on which epoch begins, as the trainer tells its loader."""

    def set_epoch(self, epoch: int) -> None:
        passes = self.batch_sampler
        assert isinstance(passes, WorkerPasses), "it is made of them"
        passes.set_epoch(epoch)


class PassTrainer:
    """A part of a trainer: it reads `passes`, in which `blank` stands for a row with nothing to learn."""

    passes: WorkerPasses
    blank: Mapping[str, Any]
    args: Any
    train_dataset: Any
    data_collator: Any

    def get_train_dataloader(self) -> DataLoader[Any]:
        return _PassLoader(
            _RowsAndBlank(self.train_dataset, self.blank),
            batch_sampler=self.passes,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
