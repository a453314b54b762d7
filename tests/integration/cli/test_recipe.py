"""`tokenyard recipe run` as a process, against the real control plane; only cluster and models are said beforehand."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from support.finetune.control_plane import ControlPlane
from support.finetune.rows import rows

CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"b": 2}'}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
RECIPE = """
name: mine
description: d
base_model: small-model
suffix: mine
seed: 3
training_file: train.jsonl
validation_file: train.jsonl
hyperparameters: {n_epochs: 2, batch_size: 3, learning_rate_multiplier: 2}
test: {file: test.jsonl, judge: JUDGE, max_tokens: 9}
"""


def held_out(question: str, answer: dict[str, Any], **more: Any) -> str:
    before = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    return json.dumps({"messages": [*before, {"role": "assistant", **answer}], **more}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    (made / "recipe.yaml").write_text(RECIPE.replace("JUDGE", "exact"))
    (made / "train.jsonl").write_bytes(rows(12))
    (made / "test.jsonl").write_text("".join(held_out(f"q{one}", {"content": f"a{one}"}) for one in range(4)))
    return made


async def test_both_models_are_asked_and_the_gain_is_told(plane: ControlPlane, folder: Path, tmp_path: Path) -> None:
    plane.answers.base = {"q0": {"content": "A0."}}
    plane.answers.tuned = {f"q{one}": {"content": f"a{one}"} for one in range(3)}
    figures = tmp_path / "figures.json"
    command = await plane.command(
        *("tokenyard", "recipe", "run", str(folder), "--url", plane.url, "--out", str(figures)),
        TOKENYARD_API_KEY=plane.tenant_key,
    )
    submission = await plane.submitted()
    spec = plane.stack.cluster.specs[submission]
    assert (spec.seed, spec.hyperparameters.n_epochs, spec.hyperparameters.learning_rate_multiplier) == (3, 2, 2)
    assert spec.validation_url is not None
    await plane.stack.cluster.tell(submission, "Step 1/8")
    await plane.stack.cluster.succeed(submission, tokens=600)
    output = await plane.output_of(command)
    assert command.returncode == 0, output
    assert "Step 1/8" in output
    assert "wrong: 'q3': 'I do not know.' instead of 'a3'" in output
    found = json.loads(figures.read_text())
    assert found["tuned_model"].startswith("ft:small-model:acme:mine:")
    assert (found["base"], found["tuned"], found["held_out_rows"], found["trained_tokens"]) == (0.25, 0.75, 4, 600)
    assert found["mistakes"] == [{"question": "q3", "wanted": "a3", "answer": "I do not know."}]
    assert len(plane.answers.asked) == 8
    asked = plane.answers.asked[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("small-model", 0, 9)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]  # not the answer


async def test_calls_of_tools_are_judged_and_json_is_all_that_is_printed(plane: ControlPlane, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("JUDGE", "tool_calls"))
    (folder / "test.jsonl").write_text(held_out("q0", {"tool_calls": [CALL]}, tools=[TOOL]))
    plane.answers.tuned = {"q0": {"content": None, "tool_calls": [CALL]}}
    command = await plane.command(
        *("tokenyard", "recipe", "run", str(folder), "--url", f"{plane.url}/v1", "--organization", "acme", "--json"),
        TOKENYARD_ADMIN_KEY=plane.admin_key,
    )
    await plane.stack.cluster.succeed(await plane.submitted(), tokens=6)
    output = await plane.output_of(command)
    assert command.returncode == 0, output
    found = json.loads(output)
    assert (found["base"], found["tuned"], found["mistakes"]) == (0, 1, [])
    assert plane.answers.asked[0]["tools"][0]["function"]["name"] == "find"


async def test_a_failed_job_and_a_refused_question_are_one_clear_line(plane: ControlPlane, folder: Path) -> None:
    run = ("tokenyard", "recipe", "run", str(folder), "--url", plane.url)
    command = await plane.command(*run, TOKENYARD_API_KEY=plane.tenant_key)
    await plane.stack.cluster.fail(await plane.submitted(), "training_diverged", "The loss is not a number any more.")
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1].endswith("failed: The loss is not a number any more.")
    plane.answers.refuses = True
    command = await plane.command(*run, TOKENYARD_API_KEY=plane.tenant_key)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert "The budget is spent." in output.splitlines()[-1]


async def test_a_signal_cancels_the_job_of_a_recipe(plane: ControlPlane, folder: Path) -> None:
    run = ("tokenyard", "recipe", "run", str(folder), "--url", plane.url)
    command = await plane.command(*run, TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    command.send_signal(signal.SIGINT)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert "was cancelled" in output.splitlines()[-1]
    assert (await plane.stack.job(job.id)).status == "cancelled"


async def test_without_a_key_it_says_which_to_give(plane: ControlPlane, folder: Path) -> None:
    command = await plane.command("tokenyard", "recipe", "run", str(folder), "--url", plane.url)
    output = await plane.output_of(command)
    assert command.returncode == 1, output
    assert output.endswith("TOKENYARD_ADMIN_KEY with --organization.\n")
