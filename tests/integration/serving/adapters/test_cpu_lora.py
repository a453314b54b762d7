"""What is computed together on a CPU, against a dense reference: each row by itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")

from tokenyard_deployments.serving.engine.cpu_adapters.rows import rows_together  # noqa: E402

INPUTS, RANK, SLOTS = 48, 8, 32
WIDTHS = (24, 16, 16)
"""Of the outputs of three projections that lie side by side."""

BATCHES = {
    "all base": [-1] * 5,
    "one row": [2],
    "one adapter": [1] * 6,
    "base between adapters": [-1, 0, -1, 3, -1],
    "every slot": [*range(SLOTS)],
    "every slot, backwards, twice": [*range(SLOTS - 1, -1, -1)] * 2,
    "far apart": [31, -1, 0],
    "long runs": [0] * 20 + [-1] * 20 + [3] * 20,
    "one long prompt beside short answers": [*range(1, 16), *([0] * 100), *range(16, 31)],
    "scattered, many": [-1, 0, 1, 3] * 16,
}


@pytest.fixture(params=BATCHES, ids=lambda name: name.replace(" ", "-"))
def slots(request: pytest.FixtureRequest) -> Sequence[int]:
    batch: Sequence[int] = BATCHES[request.param]
    return batch


@pytest.mark.parametrize("widths", [WIDTHS, (56,)], ids=["three-projections", "one-projection"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_row_gets_what_its_own_adapter_makes_of_it(
    slots: Sequence[int], widths: tuple[int, ...], dtype: str
) -> None:
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(SLOTS, RANK, len(widths), INPUTS, generator=generator) / INPUTS**0.5
    b = torch.randn(SLOTS, RANK, sum(widths), generator=generator) / RANK**0.5
    inputs = torch.randn(len(slots), INPUTS, generator=generator).to(getattr(torch, dtype))
    before = torch.randn(len(slots), sum(widths), generator=generator).to(inputs.dtype)
    output = before.clone()
    for rows in rows_together(slots):
        own = slice(rows.first, rows.end)
        rows.add(output, inputs, a[own], b[own], widths)
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(output[row], before[row])
        else:
            expected = before[row] + _alone(inputs[row].float(), a[slot], b[slot], widths).to(inputs.dtype)
            torch.testing.assert_close(output[row], expected)


def test_what_overflows_in_one_adapter_reaches_no_other_row() -> None:
    slots = [0, 1, -1, 2, 0]
    a, b = torch.ones(SLOTS, RANK, 1, INPUTS), torch.ones(SLOTS, RANK, 4)
    a[1] = b[1] = torch.inf
    output = torch.zeros(len(slots), 4)
    for rows in rows_together(slots):
        own = slice(rows.first, rows.end)
        rows.add(output, torch.ones(len(slots), INPUTS), a[own], b[own], [4])
    assert output.isfinite().all(dim=1).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("slots", "products"),
    [
        pytest.param([-1] * 32, 0, id="nothing"),
        pytest.param([*range(32)], 1, id="one-row-each"),
        pytest.param([*range(4)] * 8, 1, id="eight-rows-each"),
        pytest.param([*range(1, 32), *([0] * 97)], 2, id="a-long-prompt-by-itself"),
        pytest.param([0, 31], 2, id="far-apart"),
    ],
)
def test_little_is_computed_in_vain(slots: list[int], products: int) -> None:
    together = rows_together(slots)
    assert len(together) == products
    assert sum((one.end - one.first) * one.width for one in together) <= 2 * len(slots)


def test_the_stock_operation_still_needs_replacing() -> None:
    """A row of the base model takes the last slot's delta. When this fails, vLLM was fixed: the plugin may go."""
    lora_ops = pytest.importorskip("vllm.lora.ops.torch_ops.lora_ops")
    output = torch.zeros(2, INPUTS)
    lora_ops.bgmv_expand(torch.ones(2, RANK), torch.ones(SLOTS, 1, INPUTS, RANK), output, torch.tensor([-1, 0]))
    assert output[0].abs().sum() > 0


def _alone(inputs: "Tensor", a: "Tensor", b: "Tensor", widths: Sequence[int]) -> "Tensor":
    parts = b.split_with_sizes(list(widths), dim=1)
    return torch.cat([(a[:, number] @ inputs) @ part for number, part in enumerate(parts)])
