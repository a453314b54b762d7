"""Lays the rows of one pass behind each other, in packs of about one length, so that hardly any of it is padding.

What a row sees stays the same: its positions begin at 0, and the mask that the model makes of them keeps the rows of a
pack apart. Which rows are in a step is not decided here.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tokenyard_deployments.training.examples import IGNORED

_ATTENTION_LENGTH = 1024
"""The length at which a token's attention takes as long as all else that is computed for it, about.

A rough figure, of one run on a busy CPU with a model of 135M parameters; it decides about speed alone.
"""
_PROBE = 6
_POSITIONS = list(range(_PROBE))
_NOTHING = 1e-5
_ROUNDING = 0.3  # bfloat16 comes to 0.1 in a model of 30 layers


class PackingCollator:
    """Makes a pass of rows for a trainer: as packs, or where that would save nothing, padded as `padded` does it."""

    def __init__(self, padded: DataCollatorForLanguageModeling) -> None:
        self._padded = padded

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = [len(row["input_ids"]) for row in rows]
        packs = packed(lengths)
        if len(packs) == len(rows):
            found: dict[str, torch.Tensor] = self._padded(rows)
            return found
        shape = (len(packs), max(sum(lengths[index] for index in pack) for pack in packs))
        input_ids = torch.full(shape, self._padded.pad_token_id)
        labels = torch.full(shape, IGNORED)
        position_ids = torch.zeros(shape, dtype=torch.long)  # what pads a pack sees nothing but itself
        for number, pack in enumerate(packs):
            begin = 0
            for index in pack:
                end = begin + lengths[index]
                input_ids[number, begin:end] = torch.as_tensor(rows[index]["input_ids"])
                labels[number, begin + 1 : end] = torch.as_tensor(rows[index]["labels"])[1:]  # nothing predicts a first
                position_ids[number, begin:end] = torch.arange(lengths[index])
                begin = end
        return {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}


def packed(lengths: Sequence[int]) -> list[list[int]]:
    """Return which rows lie behind each other; each in a pack of its own where nothing is better.

    Of every number of packs, filled longest row first into what is the shortest then, it is the one that takes least to
    compute. The same lengths always give the same packs.
    """
    best, least = [[index] for index in range(len(lengths))], _work(len(lengths), max(lengths))
    for count in range(1, len(lengths)):
        found, longest = _filled(lengths, count)
        work = _work(count, longest)
        if work < least:
            best, least = found, work
        if longest == max(lengths):
            break  # with more packs it only becomes more
    return best


def _filled(lengths: Sequence[int], count: int) -> tuple[list[list[int]], int]:
    packs: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, number) for number in range(count)]
    for index in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        length, number = filled[0]
        packs[number].append(index)
        heapq.heapreplace(filled, (length + lengths[index], number))
    return packs, max(filled)[0]


def _work(count: int, length: int) -> float:
    """Return what `count` packs of `length` take, in tokens without attention."""
    return count * length * (1 + length / _ATTENTION_LENGTH)


def keeps_rows_apart(model: Any) -> bool:
    """Tell whether to this model a row behind another one in a pack is what it is alone, whatever that other one is.

    Not so where a state runs from token to token instead of attention, or a distance is counted without positions.
    The measure is how much another row changes where it is meant to be seen.
    """
    row, other, another = (list(range(begin, begin + _PROBE)) for begin in (0, _PROBE, 2 * _PROBE))
    was_training = model.training
    model.eval()
    try:
        alone = _logits(model, row, _POSITIONS)
        behind, behind_another = (_logits(model, first + row, _POSITIONS * 2) for first in (other, another))
        seeing = _logits(model, other + row, list(range(2 * _PROBE)))
    except TypeError:
        return False  # it takes no positions
    finally:
        model.train(was_training)
    seen = (seeing - alone).norm()
    same, like_alone = (behind - behind_another).norm() < _NOTHING * seen, (behind - alone).norm() < _ROUNDING * seen
    return bool(same and like_alone)


def _logits(model: Any, ids: list[int], positions: list[int]) -> torch.Tensor:
    """Return those of the last row."""
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=torch.tensor([ids], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            use_cache=False,
        ).logits
    return found[0, -_PROBE:].float()
