"""A layer whose adapters come and go in its slots, as vLLM's own code fills them."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
layers = pytest.importorskip("vllm.lora.layers")

from vllm.config.lora import LoRAConfig  # noqa: E402
from vllm.model_executor.layers.linear import ReplicatedLinear  # noqa: E402

from tokenyard_deployments.serving.engine.cpu_adapters.layers import CpuAdapters, OnCpu, adapted_rows  # noqa: E402

WIDTH_IN, WIDTH_OUT, RANK, SLOTS = 12, 6, 8, 3


def _layer() -> Any:
    kind: Any = type("Layer", (OnCpu, layers.ReplicatedLinearWithLoRA), {})
    base = ReplicatedLinear.__new__(ReplicatedLinear)
    torch.nn.Module.__init__(base)
    layer = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    layer.base_layer, layer.device, layer.tp_size, layer.n_slices = base, "cpu", 1, 1
    layer.input_size, layer.output_size = WIDTH_IN, WIDTH_OUT
    layer.create_lora_weights(SLOTS, LoRAConfig(max_loras=SLOTS, max_lora_rank=RANK, lora_dtype=torch.bfloat16))
    layer.set_mapping(SimpleNamespace(adapted=None))
    return layer


def _run(layer: Any, slots: list[int], inputs: Any) -> Any:
    layer.punica_wrapper.adapted = adapted_rows(torch.tensor(slots))
    return layer._apply_lora_to_output(inputs, torch.zeros(len(slots), WIDTH_OUT))


def test_a_slot_keeps_nothing_of_the_adapter_before_it() -> None:
    layer, inputs = _layer(), torch.randn(4, WIDTH_IN)
    large = (torch.randn(RANK, WIDTH_IN), torch.randn(WIDTH_OUT, RANK))
    small = (torch.randn(2, WIDTH_IN).bfloat16(), torch.randn(WIDTH_OUT, 2).bfloat16())
    layer.set_lora(0, *large)
    layer.set_lora(2, *large)
    layer.set_lora(2, *small)
    output = _run(layer, [2, -1, 0, 2], inputs)
    for row, (a, b) in {0: small, 2: large, 3: small}.items():
        torch.testing.assert_close(output[row], b.float() @ (a.float() @ inputs[row]))
    assert not output[1].any()


def test_an_adapter_that_leaves_the_layer_as_it_is_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = _layer(), torch.randn(2, WIDTH_IN)
    layer.set_lora(1, torch.ones(RANK, WIDTH_IN), torch.ones(WIDTH_OUT, RANK))
    layer.reset_lora(1)
    monkeypatch.setattr("tokenyard_deployments.serving.engine.cpu_adapters.layers.adapter_deltas", None)
    assert not _run(layer, [1, 1], inputs).any()


def test_a_layer_that_is_not_linear_has_no_adapters() -> None:
    """vLLM would compute it as it does without the plugin, where a row of the base model gets an adapter."""
    nothing: Any = None
    with pytest.raises(NotImplementedError, match="only linear layers"):
        CpuAdapters.add_lora_logits(nothing, torch.ones(1))
