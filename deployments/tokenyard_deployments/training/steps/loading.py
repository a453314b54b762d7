"""Lets a trainer read the passes of its worker instead of choosing rows itself."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset

from tokenyard_deployments.training.steps.passes import WorkerPasses


class _RowsAndBlank(Dataset[Any]):  # type: ignore[misc]
    def __init__(self, rows: Any, blank: Mapping[str, Any]) -> None:
        self._rows = rows
        self._blank = blank

    def __len__(self) -> int:
        return len(self._rows) + 1

    def __getitem__(self, index: int) -> Any:
        return self._blank if index == len(self._rows) else self._rows[index]


class _PassLoader(DataLoader[Any]):  # type: ignore[misc]
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
