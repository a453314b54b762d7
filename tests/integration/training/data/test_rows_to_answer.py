"""The check of a file that is to be answered: its prompts are counted, and what its grader lacks is named by line."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
from transformers import AutoTokenizer

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import write_rows
from tokenyard.core.datasets.checking import CheckLimits, CheckSpec, DataReport
from tokenyard.core.graders.shapes import parsed_grader
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import Hyperparameters
from tokenyard_deployments.training.data.check import FileRefused, check_files

GRADER = parsed_grader(
    {
        "type": "string_check",
        "name": "exact",
        "operation": "eq",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
    }
)
PROMPT = len("|user\nSay 1|\n|assistant\n")  # a mark is one token


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": text}], **fields}


def check(folder: Path, rows: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> DataReport:
    base = save_tiny_model(folder / "base")
    settings = Hyperparameters(
        n_epochs=1,
        batch_size=1,
        learning_rate_multiplier=1.0,
        num_generations=2,
        max_completion_length=20,
        grader=GRADER,
    )
    files = {"training_file": rows, "validation_file": held_out}
    spec = CheckSpec(
        job=JobId("ftjob-a"),
        run=1,
        organization=OrganizationId("org_test"),
        method="reinforcement",
        base_model_path=str(base),
        max_seq_length=100,
        files={name: f"file://{write_rows(folder / name, found)}" for name, found in files.items()},
        output_url=f"file://{folder}",
        limits=CheckLimits(timeout_s=60),
        hyperparameters=settings,
    )
    return check_files(spec, AutoTokenizer.from_pretrained(base))


def test_prompts_are_counted_and_what_should_be_looked_at_is_found(tmp_path: Path) -> None:
    rows = [question(text, answer="a") for text in ("Say 1", "Say 2", "say 1", "x" * 60)]
    report = check(tmp_path, rows, [question("Say 2", answer="b"), question("Say 3", answer="c")])
    system = len("|system\n|\n")
    found = report.files["training_file"]
    assert (found.rows, found.tokens, found.learnt) == (4, 4 * (PROMPT + system) + 55, 0)
    assert {(one.file, one.code, one.lines) for one in report.findings} == {
        ("training_file", "duplicate", (3,)),
        ("training_file", "nothing_learnt", (4,)),
        ("validation_file", "leaked", (1,)),
    }


def test_what_the_grader_lacks_is_named_by_line(tmp_path: Path) -> None:
    good = [question("Say 1", answer="a")]
    with pytest.raises(FileRefused) as refused:
        check(tmp_path, good, [*good, question("Say 2", reply="b")])
    assert refused.value.error.param == "validation_file"
    assert "line 2: the grader refers to item.answer, which the row does not have" in refused.value.error.message
