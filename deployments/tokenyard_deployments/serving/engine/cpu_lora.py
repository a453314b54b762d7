"""Makes LoRA on CPU right and quick: a vLLM plugin that replaces three operations.

vLLM 0.32 on CPU picks each row's adapter by indexing with its slot number, and a row of the base model carries -1:
in a batch with other rows it gets the LAST slot's adapter, another tenant's. Here such rows are left alone, and rows
of one adapter are multiplied together instead of copying the adapter's weights once for each row.

vLLM loads it in each of its processes through the entry point `vllm.general_plugins`.
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch

Rows: TypeAlias = "slice | torch.Tensor"
"""Which rows of a batch: a slice where they are neighbours, else their numbers."""

_BASE_MODEL = -1
_CACHED_BATCHES = 256
# Below both bounds, gathering each row's weights beats one product for each adapter (measured, hidden size 576).
_GATHER_BELOW_ROWS_PER_ADAPTER = 4
_GATHER_MAX_ROWS = 16


def bgmv_shrink(
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    scaling: float = 1.0,
) -> None:
    """Set each row of the output to scaling x (row @ its adapter's A); rows of the base model become 0."""
    width = lora_b_weights.shape[-2]
    output_tensor[:, :width] = 0
    for rows, product in _products(inputs, lora_b_weights, lora_indices_tensor, output_tensor.dtype):
        output_tensor[rows, :width] = product * scaling


def bgmv_expand(
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    add_inputs: bool = True,
) -> None:
    """Add row @ its adapter's B to each row of the output; rows of the base model are not touched."""
    # Model and adapter may be padded to different widths.
    width = min(lora_b_weights.shape[-2], output_tensor.shape[1])
    _expand(inputs, lora_b_weights, output_tensor[:, :width], lora_indices_tensor, add_inputs)


def bgmv_expand_slice(  # noqa: PLR0917 - vLLM calls it by position
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """Like `bgmv_expand`, into the columns from `slice_offset` on."""
    columns = output_tensor[:, slice_offset : slice_offset + slice_size]
    _expand(inputs, lora_b_weights, columns, lora_indices_tensor, add_inputs)


def install() -> None:
    """Replace the operations of this process' vLLM where it runs on CPU; on other platforms change nothing.

    Raises:
        RuntimeError: this vLLM does not have the operations that are replaced here, so it must not serve adapters.
    """
    from vllm.platforms import current_platform  # noqa: PLC0415 - vLLM is heavy, and loads this module itself

    if not current_platform.is_cpu():
        return
    from vllm.lora.ops import torch_ops  # noqa: PLC0415
    from vllm.lora.ops.torch_ops import lora_ops  # noqa: PLC0415
    from vllm.lora.punica_wrapper import punica_cpu  # noqa: PLC0415

    for operation in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        for module in (lora_ops, torch_ops, punica_cpu):
            if not hasattr(module, operation.__name__):
                raise RuntimeError(f"{module.__name__} has no {operation.__name__}: the CPU LoRA fix does not fit it")
            setattr(module, operation.__name__, operation)


def installed() -> bool:
    """Tell whether this process' vLLM computes adapters rightly: it has the fix, or does not need it."""
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return True
    from vllm.lora.ops.torch_ops import lora_ops  # noqa: PLC0415
    from vllm.lora.punica_wrapper import punica_cpu  # noqa: PLC0415

    return bool(lora_ops.bgmv_expand is bgmv_expand and punica_cpu.bgmv_expand_slice is bgmv_expand_slice)


def _expand(
    inputs: torch.Tensor, weights: torch.Tensor, columns: torch.Tensor, indices: torch.Tensor, add: bool
) -> None:
    for rows, product in _products(inputs, weights, indices, columns.dtype):
        fitting = product[:, : columns.shape[1]]
        if not add:
            columns[rows] = fitting
        elif isinstance(rows, slice):
            columns[rows] += fitting
        else:
            columns.index_add_(0, rows, fitting)


def _products(
    inputs: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, dtype: torch.dtype
) -> list[tuple[Rows, torch.Tensor]]:
    """Return row @ adapter^T for all rows that have an adapter. `weights` is (slots, [1,] out, in)."""
    if weights.dim() == 4:
        weights = weights.squeeze(1)
    plan = _plan(tuple(indices.tolist()))
    if plan.slots is not None:
        gathered = weights.index_select(0, plan.slots).to(dtype)
        return [(plan.rows, torch.bmm(gathered, inputs[plan.rows].to(dtype).unsqueeze(2)).squeeze(2))]
    return [(rows, inputs[rows].to(dtype) @ weights[slot].to(dtype).t()) for slot, rows in plan.groups]


class _Plan(NamedTuple):
    """How to compute one batch: by gathering (`slots` of all `rows`), or adapter by adapter (`groups`)."""

    groups: tuple[tuple[int, Rows], ...]
    rows: Rows = slice(0, 0)
    slots: torch.Tensor | None = None


@lru_cache(maxsize=_CACHED_BATCHES)
def _plan(indices: tuple[int, ...]) -> _Plan:
    """Plan a batch once; every layer of a step asks for the same one."""
    members: dict[int, list[int]] = {}
    for row, slot in enumerate(indices):
        if slot != _BASE_MODEL:
            members.setdefault(slot, []).append(row)
    groups = tuple((slot, _as_rows(rows)) for slot, rows in members.items())
    rows = [row for row, slot in enumerate(indices) if slot != _BASE_MODEL]
    few = len(rows) <= _GATHER_MAX_ROWS and len(rows) < len(groups) * _GATHER_BELOW_ROWS_PER_ADAPTER
    if len(groups) > 1 and few:
        return _Plan(groups, _as_rows(rows), torch.tensor([indices[row] for row in rows]))
    return _Plan(groups)


def _as_rows(rows: list[int]) -> Rows:
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)
