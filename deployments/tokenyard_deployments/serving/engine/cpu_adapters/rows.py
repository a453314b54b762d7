"""Which rows of a batch are multiplied together, where each row may be over another adapter, or over none."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch

Rows: TypeAlias = "slice | torch.Tensor"
"""Which rows of a batch: a slice where they are neighbours, else their numbers."""

BASE_MODEL = -1
# What one adapter costs that is multiplied by itself, and what a slot costs beside others in one product, in rows
# (measured: hidden size 576, rank 8).
_ALONE, _BESIDE = 48, 8


class RowsTogether(NamedTuple):
    """Rows over the adapters in the slots from `first` to before `end`, in one product of `width` rows for each slot.

    `gathered` says which row is in each place of it; where a slot has fewer rows any row fills up. `places` says in
    which place each of `rows` is.
    """

    first: int
    end: int
    width: int
    gathered: Rows
    rows: Rows
    places: Rows

    def add(
        self, output: torch.Tensor, inputs: torch.Tensor, a: torch.Tensor, b: torch.Tensor, widths: Sequence[int]
    ) -> None:
        """Add to each of the rows what its adapter makes of its input, and touch no other row.

        `a` is (slots, rank, projections, in) and `b` (slots, rank, out), of these slots only; `widths` divide `out`
        among the projections.
        """
        slots, rank, projections, width_in = a.shape
        gathered = _taken(inputs, self.gathered).to(a.dtype).view(slots, self.width, width_in)
        shrunk = torch.bmm(a.flatten(1, 2), gathered.transpose(1, 2)).view(slots, rank, projections, self.width)
        expanded = [
            torch.bmm(shrunk[:, :, number].transpose(1, 2), columns)
            for number, columns in enumerate(b.split_with_sizes(list(widths), dim=2))
        ]
        whole = expanded[0] if projections == 1 else torch.cat(expanded, dim=2)
        products = _taken(whole.to(output.dtype).view(slots * self.width, -1), self.places)
        if isinstance(self.rows, slice):
            output[self.rows] += products
        else:
            output.index_copy_(0, self.rows, output.index_select(0, self.rows) + products)


def rows_together(slots: Sequence[int]) -> tuple[RowsTogether, ...]:
    """Return how to compute a batch whose rows are over the adapters in `slots`: as little as possible in vain."""
    members: dict[int, list[int]] = {}
    for row, slot in enumerate(slots):
        if slot != BASE_MODEL:
            members.setdefault(slot, []).append(row)
    # A large one among small ones would be filled up in every slot; slots that lie far apart, in every one between.
    beside = dict(sorted(members.items(), key=lambda one: len(one[1])))
    alone: dict[int, list[int]] = {}
    while len(beside) > 1 and _cost_beside(beside) > sum(_ALONE + len(rows) for rows in beside.values()):
        slot, rows = beside.popitem()
        alone[slot] = rows
    batches = [{slot: rows} for slot, rows in alone.items()] + ([beside] if beside else [])
    return tuple(map(_together, batches))


def _cost_beside(members: dict[int, list[int]]) -> int:
    return (max(members) - min(members) + 1) * (_BESIDE + max(map(len, members.values())))


def _together(members: dict[int, list[int]]) -> RowsTogether:
    first, end = min(members), max(members) + 1
    width = max(map(len, members.values()))
    gathered = [0] * ((end - first) * width)
    places: dict[int, int] = {}
    for slot, rows in members.items():
        for place, row in enumerate(rows, (slot - first) * width):
            gathered[place] = row
            places[row] = place
    rows = sorted(places)
    return RowsTogether(first, end, width, _as_rows(gathered), _as_rows(rows), _as_rows([places[row] for row in rows]))


def _as_rows(rows: list[int]) -> Rows:
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows)


def _taken(rows: torch.Tensor, which: Rows) -> torch.Tensor:
    return rows[which] if isinstance(which, slice) else rows.index_select(0, which)
