"""Rows without a chat template are learnt as `/v1/completions` will ask for them."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from support.fakes.tiny_model import save_tiny_model
from support.finetune.encoding import count_tokens, encode
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.datasets.text_rows import CompletionRow, TextRow
from tokenyard.finetune.methods.completions import Completions, PlainText
from tokenyard_deployments.training.examples import IGNORED, read_rows

COMPLETIONS = [{"prompt": f"{n} plus {n} is ", "completion": str(n + n)} for n in range(8)]
TEXTS = [{"text": f"The {n} little pigs went to market. " * 8} for n in range(4)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tokenizer(base: Path) -> Any:
    """One that marks the beginning of a text, as Llama's does."""
    found = AutoTokenizer.from_pretrained(base)
    mark = ("<|im_start|>", found.convert_tokens_to_ids("<|im_start|>"))
    found.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[mark])
    return found


def test_of_a_completion_only_what_goes_on_is_learnt(tokenizer: Any) -> None:
    [one] = encode([CompletionRow("a b ", "cd")], tokenizer, 100)
    assert tokenizer.decode(one.input_ids) == "<|im_start|>a b cd<|im_end|>"
    assert one.input_ids[: len("|a b ")] == tokenizer("a b ")["input_ids"]
    assert tokenizer.decode([label for label in one.labels if label != IGNORED]) == "cd<|im_end|>"
    [cut] = encode([CompletionRow("a b ", "cd")], tokenizer, 6)
    assert tokenizer.decode(cut.input_ids) == "<|im_start|>a b c"


def test_a_long_text_is_learnt_in_parts(tokenizer: Any) -> None:
    parts = encode([TextRow("abcdefgh")], tokenizer, 4)
    assert [tokenizer.decode(part.input_ids) for part in parts] == ["<|im_start|>abc", "defg", "h<|im_end|>"]
    assert all(part.labels == part.input_ids for part in parts)


def test_they_are_no_more_tokens_than_were_reserved(tokenizer: Any) -> None:
    completion, text = {"prompt": "añ ", "completion": "🙂"}, {"text": "añ 🙂" * 9}
    size = Completions().check_row(completion)
    assert count_tokens(encode([CompletionRow(**completion)], tokenizer, 100)) <= size.text_tokens
    assert count_tokens(encode([TextRow(**text)], tokenizer, 4)) <= PlainText().check_row(text).text_tokens


@pytest.mark.parametrize("rows", [COMPLETIONS, TEXTS], ids=["completions", "texts"])
def test_they_are_learnt(base: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = write_rows(tmp_path / "rows.jsonl", rows)
    assert len(list(read_rows(f"file://{file}"))) == len(rows)
    settings: dict[str, Any] = {"n_epochs": 6, "batch_size": 4, "learning_rate_multiplier": 20.0}
    folder = train(spec_of(base, tmp_path, file, method="supervised", validation_url=f"file://{file}", **settings))
    losses = [checkpoint.metrics["valid_loss"] for checkpoint in folder.checkpoints()]
    counts = folder.counts()
    assert counts is not None
    assert counts.base["loss"] > losses[0] > losses[-1]
    assert 0 <= counts.base["mean_token_accuracy"] < folder.checkpoints()[-1].metrics["valid_mean_token_accuracy"]
