"""Held-out rows are measured part by part, and exactly as if they were measured at once."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from support.fakes.tiny_model import save_tiny_model
from tokenyard_deployments.training.evaluation import held_out
from tokenyard_deployments.training.evaluation.held_out import evaluate
from tokenyard_deployments.training.examples import IGNORED, Example

LENGTHS = (2, 7, 8, 9, 16, 17, 60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    set_seed(2)
    base = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path_factory.mktemp("base")))
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, target_modules=["q_proj"]))


def examples() -> list[Example]:
    found = []
    for length in LENGTHS:
        ids = [(5 * length + 3 * place) % 250 for place in range(length)]
        found.append(Example(ids, [token if place % 11 in (1, 2, 5) else IGNORED for place, token in enumerate(ids)]))
    return [*found, Example([1, 2, 3], [IGNORED] * 3)]


def at_once(model: Any) -> tuple[float, float]:
    losses, right = [], []
    for example in examples():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0]
        for place, label in enumerate(example.labels[1:]):
            if label != IGNORED:
                losses.append(float(-logits[place].log_softmax(-1)[label]))
                right.append(int(logits[place].argmax()) == label)
    return sum(losses) / len(losses), sum(right) / len(right)


@pytest.mark.parametrize("part", [1, 8, 1000])
def test_the_parts_make_the_whole(model: Any, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(held_out, "PART_TOKENS", part)
    model.eval()
    loss, accuracy = at_once(model)
    model.train()
    measured = evaluate(model, iter(examples()))
    assert measured.loss == pytest.approx(loss, rel=1e-5)
    assert measured.mean_token_accuracy == accuracy
    assert model.training


def test_no_more_logits_are_made_than_are_looked_at(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    head = model.get_output_embeddings()
    monkeypatch.setattr(held_out, "PART_TOKENS", 8)
    watch = head.register_forward_hook(lambda _module, _inputs, logits: shapes.append(logits.shape[1]))
    evaluate(model, examples())
    watch.remove()
    assert max(shapes) <= 4
    assert sum(shapes) < sum(LENGTHS) / 2


def test_nothing_to_measure(tmp_path: Path, model: Any) -> None:
    assert str(evaluate(model, ()).loss) == "nan"
