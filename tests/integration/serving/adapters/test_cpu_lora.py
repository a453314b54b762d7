"""What adapters add to the rows of a batch on a CPU, against a dense reference: each row by itself."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")
pytest.importorskip("vllm.lora.layers")

import numpy  # noqa: E402 - Ray or vLLM brings it

from tokenyard_deployments.serving.engine.cpu_adapters.layers import OnCpu, adapted_rows  # noqa: E402

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


def applied(slots: Sequence[int], inputs: "Tensor", output: "Tensor", a: "Tensor", b: "Tensor", **of: Any) -> None:
    """Add what adapters make of the rows to `output`; `a` is (slots, projections, rank, in), `b` (slots, rank, out)."""
    widths, ranks = of.get("widths", (b.shape[2],)), of.get("ranks", [a.shape[2]] * len(a))
    layer = SimpleNamespace(
        _a=a.contiguous(),
        _b=b.contiguous(),
        _ranks=numpy.array(ranks, numpy.int64),
        _offsets=numpy.cumsum([0, *widths], dtype=numpy.int64),
        punica_wrapper=SimpleNamespace(adapted=adapted_rows(torch.tensor(slots))),
    )
    assert OnCpu._apply_lora_to_output(layer, inputs, output) is output


def adapters(widths: Sequence[int], rank: int = RANK) -> "tuple[Tensor, Tensor]":
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(SLOTS, len(widths), rank, INPUTS, generator=generator) / INPUTS**0.5
    return a, torch.randn(SLOTS, rank, sum(widths), generator=generator) / rank**0.5


@pytest.mark.parametrize("widths", [WIDTHS, (56,)], ids=["three-projections", "one-projection"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_row_gets_what_its_own_adapter_makes_of_it(
    slots: Sequence[int], widths: tuple[int, ...], dtype: str
) -> None:
    a, b = adapters(widths)
    inputs = torch.randn(len(slots), INPUTS).to(getattr(torch, dtype))
    before = torch.randn(len(slots), sum(widths)).to(inputs.dtype)
    output = before.clone()
    applied(slots, inputs, output, a, b, widths=widths)
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(output[row], before[row])
        else:
            expected = before[row] + _alone(inputs[row].float(), a[slot], b[slot], widths).to(inputs.dtype)
            torch.testing.assert_close(output[row], expected)


def test_a_row_is_to_the_bit_what_it_is_alone(slots: Sequence[int]) -> None:
    a, b = adapters(WIDTHS)
    inputs, output = torch.randn(len(slots), INPUTS), torch.zeros(len(slots), sum(WIDTHS))
    applied(slots, inputs, output, a, b, widths=WIDTHS)
    for row, slot in enumerate(slots):
        alone = torch.zeros(1, sum(WIDTHS))
        applied([slot], inputs[row : row + 1], alone, a, b, widths=WIDTHS)
        assert torch.equal(output[row], alone[0])


@pytest.mark.parametrize("rank", [1, 4, 7, 8, 9, 16, 20])
def test_only_the_ranks_that_an_adapter_has_count(rank: int) -> None:
    a, b = adapters(WIDTHS, rank=24)
    inputs, output = torch.randn(3, INPUTS), torch.zeros(3, sum(WIDTHS))
    applied([0, 1, 2], inputs, output, a, b, widths=WIDTHS, ranks=[rank, 0, 24, *[0] * 29])
    torch.testing.assert_close(output[0], _alone(inputs[0], a[0, :, :rank], b[0, :rank], WIDTHS))
    assert not output[1].any()
    torch.testing.assert_close(output[2], _alone(inputs[2], a[2], b[2], WIDTHS))


def test_what_overflows_in_one_adapter_reaches_no_other_row() -> None:
    slots = [0, 1, -1, 2, 0]
    a, b = torch.ones(SLOTS, 1, RANK, INPUTS), torch.ones(SLOTS, RANK, 4)
    a[1] = b[1] = torch.inf
    output = torch.zeros(len(slots), 4)
    applied(slots, torch.ones(len(slots), INPUTS), output, a, b)
    assert output.isfinite().all(dim=1).tolist() == [True, False, True, True, True]


def test_the_stock_operation_still_needs_replacing() -> None:
    """A row of the base model takes the last slot's delta. When this fails, vLLM was fixed: the plugin may go."""
    lora_ops = pytest.importorskip("vllm.lora.ops.torch_ops.lora_ops")
    output = torch.zeros(2, INPUTS)
    lora_ops.bgmv_expand(torch.ones(2, RANK), torch.ones(SLOTS, 1, INPUTS, RANK), output, torch.tensor([-1, 0]))
    assert output[0].abs().sum() > 0


def _alone(inputs: "Tensor", a: "Tensor", b: "Tensor", widths: Sequence[int]) -> "Tensor":
    parts = b.split_with_sizes(list(widths), dim=1)
    return torch.cat([(a[number] @ inputs) @ part for number, part in enumerate(parts)])
