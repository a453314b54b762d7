"""A small recipe of one's own, run by the command on the real platform."""

import json
import shutil
from pathlib import Path

import pytest

from support.servers.whole_stack import MODEL, Stack
from tokenyard.settings import shipped

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
RECIPE = f"""
name: mine
description: Teaches a name.
base_model: {MODEL}
suffix: mine
seed: 1
training_file: train.jsonl
hyperparameters: {{n_epochs: 2, batch_size: 4, learning_rate_multiplier: 8}}
test: {{file: valid.jsonl, judge: exact, max_tokens: 32}}
"""


def test_a_recipe_tells_what_was_gained_over_the_base(stack: Stack, tmp_path: Path) -> None:
    for name in ("train.jsonl", "valid.jsonl"):
        shutil.copy(shipped("deployments/recipes/tour") / name, tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    _, client = stack.tenant("recipes")
    run = stack.command("recipe", "run", str(tmp_path), "--organization", "recipes", "--json", timeout_s=600)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert (found["held_out_rows"], found["base"]) == (6, 0)
    assert found["tuned_model"].startswith(f"ft:{MODEL}:recipes:mine:")
    assert found["trained_tokens"] > 0
    assert found["tuned_model"] in {model.id for model in client.models.list()}
