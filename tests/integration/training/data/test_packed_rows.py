"""Rows behind each other in packs: whatever they are, a step's loss and gradients are those of the padded rows."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("trl")
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tokenyard_deployments.training.data.packing import PackingCollator, keeps_rows_apart, packed
from tokenyard_deployments.training.examples import IGNORED

VOCABULARY = 64
PADDED = DataCollatorForLanguageModeling(pad_token_id=0)
SIZES: dict[Any, dict[str, Any]] = {
    Lfm2Config: {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]},
    },
    GPT2Config: {"n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    BloomConfig: {"hidden_size": 32, "n_layer": 2, "n_head": 2},
}
ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, VOCABULARY - 1), st.booleans()), min_size=1, max_size=24), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    set_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that what a token sees changes much
    )
    yield LlamaForCausalLM(config).train()
    torch.set_num_threads(threads)


def examples(rows: Sequence[Sequence[tuple[int, bool]]]) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": [token for token, _ in row], "labels": [token if learnt else IGNORED for token, learnt in row]}
        for row in rows
    ]


def learnt_tokens(batch: dict[str, torch.Tensor]) -> int:
    return int(batch["labels"][:, 1:].ne(IGNORED).sum())


def loss_and_gradients(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    # As TRL asks it. With a cache, transformers would not look for packs.
    loss = model(**batch, num_items_in_batch=max(1, learnt_tokens(batch)), use_cache=False).loss
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@given(rows=ROWS)
@settings(deadline=None, max_examples=60)
def test_loss_and_gradients_are_those_of_padded_rows(model: Any, rows: list[list[tuple[int, bool]]]) -> None:
    encoded = examples(rows)
    padded, packs = PADDED(encoded), PackingCollator(PADDED)(encoded)
    assert learnt_tokens(packs) == learnt_tokens(padded)
    assert packs["input_ids"].numel() <= padded["input_ids"].numel()
    expected, found = loss_and_gradients(model, padded), loss_and_gradients(model, packs)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(rows=ROWS, changed=st.data())
@settings(deadline=None, max_examples=30)
def test_a_row_does_not_see_what_else_is_in_its_pack(
    model: Any, rows: list[list[tuple[int, bool]]], changed: st.DataObject
) -> None:
    """Bit for bit: another row's tokens change nothing in the numbers of this one."""
    index = changed.draw(st.integers(0, len(rows) - 1))
    others = [
        row if number == index else [((t + 1) % VOCABULARY, m) for t, m in row] for number, row in enumerate(rows)
    ]
    batches = [PackingCollator(PADDED)(examples(some)) for some in (rows, others)]
    with torch.no_grad():
        first, second = (model(**batch, use_cache=False).logits for batch in batches)
    place = place_of(rows, index)
    assert torch.equal(first[place], second[place])


def place_of(rows: Sequence[Sequence[Any]], index: int) -> tuple[int, slice]:
    lengths = [len(row) for row in rows]
    number, pack = next((number, pack) for number, pack in enumerate(packed(lengths)) if index in pack)
    begin = sum(lengths[one] for one in pack[: pack.index(index)])
    return number, slice(begin, begin + lengths[index])


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=64))
def test_every_row_is_in_one_pack_and_packs_take_no_more_room(lengths: list[int]) -> None:
    packs = packed(lengths)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs)
    assert len(packs) * max(sum(lengths[index] for index in pack) for pack in packs) <= len(lengths) * max(lengths)
    assert packed(lengths) == packs


def test_one_long_row_beside_many_short_ones_leaves_hardly_any_padding() -> None:
    lengths = [400, *[40] * 30]
    packs = packed(lengths)
    assert len(packs) * max(sum(lengths[index] for index in pack) for pack in packs) < 1.05 * sum(lengths)
    assert len(packed([40] * 8)) == 8, "nothing is to be won"


@pytest.mark.parametrize("kind", [Lfm2Config, GPT2Config, BloomConfig])
def test_a_model_that_does_not_keep_rows_apart_is_found_out(model: Any, kind: Any) -> None:
    """One with a state beside its attention, one whose positions are learnt, one that takes none."""
    assert keeps_rows_apart(model)
    assert model.training
    set_seed(1)
    other = AutoModelForCausalLM.from_config(kind(**SIZES[kind], vocab_size=VOCABULARY, initializer_range=0.3))
    assert keeps_rows_apart(other) is (kind is GPT2Config)
