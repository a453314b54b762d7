"""vLLM's layers with adapters, and what tells them of each batch, as they are on a CPU (vLLM pinned: 0.32).

Only linear layers may have adapters. vLLM says so by name where a model's file allows others, before it starts.
"""

from typing import Any, NamedTuple, NoReturn, TypeAlias

import numba
import numpy
import torch
from vllm.lora import layers, utils
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from tokenyard_deployments.serving.engine.cpu_adapters.kernel import adapter_deltas
from tokenyard_deployments.serving.engine.pinned import require

_LINEAR = (
    layers.ColumnParallelLinearWithLoRA,
    layers.MergedColumnParallelLinearWithLoRA,
    layers.QKVParallelLinearWithLoRA,
    layers.MergedQKVParallelLinearWithLoRA,
    layers.RowParallelLinearWithLoRA,
    layers.ReplicatedLinearWithLoRA,
    layers.MergedColumnParallelLinearVariableSliceWithLoRA,
)
BASE_MODEL = -1
_CLASSES, _APPLY = "_all_lora_classes", "_apply_lora_to_output"


Rows: TypeAlias = "slice | torch.Tensor"
"""Which rows of a batch: a slice where they are neighbours, else their numbers."""


class AdaptedRows(NamedTuple):
    """The rows of a batch that are over adapters, and the slot of each one's."""

    rows: Rows
    slots: numpy.ndarray[Any, numpy.dtype[numpy.int64]]


def adapted_rows(slots: torch.Tensor) -> AdaptedRows | None:
    """Return those of a batch whose rows are over the adapters in `slots`; None where there are none."""
    (rows,) = torch.nonzero(slots != BASE_MODEL, as_tuple=True)
    if not len(rows):
        return None
    own = slots[rows].to(torch.int64).numpy()
    first, end = int(rows[0]), int(rows[-1]) + 1
    return AdaptedRows(slice(first, end) if end - first == len(rows) else rows, own)


class CpuAdapters(PunicaWrapperCPU):  # type: ignore[misc]
    """Tells the layers which rows of a batch are over which adapters; vLLM makes it before the layers."""

    adapted: AdaptedRows | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require(utils, _CLASSES)
        require(_LINEAR[0], _APPLY, "create_lora_weights", "set_lora", "reset_lora")
        setattr(utils, _CLASSES, tuple(type(f"Cpu{one.__name__}", (OnCpu, one), {}) for one in _LINEAR))

    def update_metadata(self, mapping: Any, lora_index_to_id: Any, max_loras: int, vocab_size: int, **_: Any) -> None:
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        self.adapted = adapted_rows(self.token_lora_indices)
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))

    def _not_here(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("on a CPU only linear layers have adapters, and they compute them themselves")

    add_shrink = add_expand = add_lora_linear = _not_here
    add_lora_embedding = add_lora_logits = apply_lora_full_linear = _not_here


def _zeros(*shape: int) -> torch.Tensor:
    """Return what takes memory only where it is written, as torch's own zeros do not."""
    return torch.from_numpy(numpy.zeros(shape, numpy.float32))


class OnCpu:
    """A linear layer whose adapters lie in two tensors, those of all projections side by side.

    An adapter takes memory, and time, of its own rank, which is 0 where it leaves the layer as it is.
    """

    def create_lora_weights(self: Any, max_loras: int, lora_config: Any, model_config: Any = None) -> None:
        super().create_lora_weights(max_loras, lora_config, model_config)  # type: ignore[misc]
        (_, _, rank, width_in), widths = self.lora_a_stacked[0].shape, [b.shape[2] for b in self.lora_b_stacked]
        self._a = _zeros(max_loras, len(widths), rank, width_in)
        self._b = _zeros(max_loras, rank, sum(widths))
        self._ranks = numpy.zeros(max_loras, numpy.int64)
        self._offsets = numpy.cumsum([0, *widths], dtype=numpy.int64)
        # As vLLM fills them: (slots, 1, rank, in) and (slots, 1, out, rank) for each projection.
        self.lora_a_stacked = tuple(self._a.unsqueeze(1).unbind(2))
        self.lora_b_stacked = tuple(self._b.transpose(1, 2).unsqueeze(1).split_with_sizes(widths, dim=2))

    def reset_lora(self: Any, index: int) -> None:
        rank, self._ranks[index] = self._ranks[index], 0
        self._a[index, :, :rank] = 0
        self._b[index, :rank] = 0

    def set_lora(self: Any, index: int, lora_a: Any, lora_b: Any) -> None:
        super().set_lora(index, lora_a, lora_b)  # type: ignore[misc]
        parts = lora_a if isinstance(lora_a, list) else [lora_a]
        self._ranks[index] = max((len(part) for part in parts if part is not None), default=0)

    def _apply_lora_to_output(self: Any, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        adapted = self.punica_wrapper.adapted
        if adapted is None or not self._ranks[adapted.slots].any():
            return output
        rows = inputs.view(-1, inputs.shape[-1])[adapted.rows].float().contiguous()
        deltas = numpy.empty((len(rows), self._b.shape[2]), numpy.float32)
        adapter_deltas(
            *(deltas, rows.numpy(), self._a.numpy(), self._b.numpy(), adapted.slots, self._ranks, self._offsets)
        )
        of_rows = output.view(-1, output.shape[-1])
        of_rows[adapted.rows] += torch.from_numpy(deltas).to(output.dtype)
        return output
