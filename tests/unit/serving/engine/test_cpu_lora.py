"""The replaced LoRA operations against a dense reference: each row by itself."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")

from tokenyard_deployments.serving.engine import cpu_lora  # noqa: E402

HIDDEN, RANK, SLOTS = 48, 8, 4

BATCHES = {
    "all base": [-1] * 5,
    "one row": [2],
    "one adapter": [1] * 6,
    "base between adapters": [-1, 0, -1, 3, -1],
    "every slot, scattered": [0, 1, 2, 3, 0, 1, 2, 3],
    "few rows of two adapters": [3, -1, 0],
    "long runs": [0] * 20 + [-1] * 20 + [3] * 20,
    "scattered, many": [-1, 0, 1, 3] * 16,
}


@pytest.fixture(params=BATCHES, ids=lambda name: name.replace(" ", "-"))
def indices(request: pytest.FixtureRequest) -> "Tensor":
    return torch.tensor(BATCHES[request.param])


@pytest.fixture
def inputs(indices: "Tensor") -> "Tensor":
    torch.manual_seed(7)
    return torch.randn(len(indices), HIDDEN)


def test_shrink_equals_each_row_alone(indices: "Tensor", inputs: "Tensor") -> None:
    weights = torch.randn(SLOTS, 1, RANK, HIDDEN)
    output = torch.full((len(indices), RANK), 9.0)
    cpu_lora.bgmv_shrink(inputs, weights, output, indices, 0.5)
    for row, slot in enumerate(indices.tolist()):
        expected = 0.5 * (weights[slot, 0] @ inputs[row]) if slot >= 0 else torch.zeros(RANK)
        torch.testing.assert_close(output[row], expected)


@pytest.mark.parametrize("add", [True, False])
def test_expand_slice_equals_each_row_alone(indices: "Tensor", add: bool) -> None:
    shrunk = torch.randn(len(indices), RANK)
    weights = torch.randn(SLOTS, 1, HIDDEN, RANK)
    before = torch.randn(len(indices), 3 * HIDDEN)
    output = before.clone()
    cpu_lora.bgmv_expand_slice(shrunk, weights, output, indices, HIDDEN, HIDDEN, add)
    for row, slot in enumerate(indices.tolist()):
        expected = before[row].clone()
        if slot >= 0:
            delta = weights[slot, 0] @ shrunk[row]
            middle = expected[HIDDEN : 2 * HIDDEN]
            expected[HIDDEN : 2 * HIDDEN] = middle + delta if add else delta
        torch.testing.assert_close(output[row], expected)


def test_expand_leaves_the_padding_alone(indices: "Tensor") -> None:
    shrunk = torch.randn(len(indices), RANK)
    weights = torch.randn(SLOTS, HIDDEN, RANK)
    before = torch.randn(len(indices), HIDDEN - 8)
    output = before.clone()
    cpu_lora.bgmv_expand(shrunk, weights, output, indices)
    for row, slot in enumerate(indices.tolist()):
        delta = (weights[slot] @ shrunk[row])[: HIDDEN - 8] if slot >= 0 else 0
        torch.testing.assert_close(output[row], before[row] + delta)


def test_bfloat16_outputs_stay_close_to_float32(indices: "Tensor", inputs: "Tensor") -> None:
    a, b = torch.randn(SLOTS, 1, RANK, HIDDEN) / HIDDEN, torch.randn(SLOTS, 1, HIDDEN, RANK) / RANK
    shrunk = torch.zeros(len(indices), RANK)
    output = torch.zeros(len(indices), HIDDEN, dtype=torch.bfloat16)
    cpu_lora.bgmv_shrink(inputs.bfloat16(), a.bfloat16(), shrunk, indices)
    cpu_lora.bgmv_expand(shrunk, b.bfloat16(), output, indices)
    for row, slot in enumerate(indices.tolist()):
        expected = b[slot, 0] @ (a[slot, 0] @ inputs[row]) if slot >= 0 else torch.zeros(HIDDEN)
        torch.testing.assert_close(output[row].float(), expected, atol=0.02, rtol=0.05)


def test_the_stock_operation_still_needs_replacing() -> None:
    """A row of the base model takes the last slot's delta. When this fails, vLLM was fixed: the plugin may go."""
    lora_ops = pytest.importorskip("vllm.lora.ops.torch_ops.lora_ops")
    if lora_ops.bgmv_expand is cpu_lora.bgmv_expand:
        pytest.skip("the plugin is loaded in this process")
    output = torch.zeros(2, HIDDEN)
    lora_ops.bgmv_expand(torch.ones(2, RANK), torch.ones(SLOTS, 1, HIDDEN, RANK), output, torch.tensor([-1, 0]))
    assert output[0].abs().sum() > 0
