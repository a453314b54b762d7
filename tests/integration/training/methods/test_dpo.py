"""Preferences are learnt, by a tiny model."""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

pytest.importorskip("trl")
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from integration.training import test_ray_job as ray_job
from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from support.ray_cluster.private_ray import Cluster
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.datasets.preference_rows import PreferenceRow
from tokenyard.core.training import ADAPTER_WEIGHTS, RunState, TrainingEvent, submission_id
from tokenyard.finetune.methods.dpo import Dpo
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.preferences import encode_preferences


def pair(question: str, better: str, worse: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


KNOWN = [pair(f"Say {n}", f"yes sir {n}", f"nope {n}") for n in range(16)]
HELD_OUT = [pair(f"Say {n}", f"yes sir {n}", f"nope {n}") for n in range(40, 48)]
SHORT_TEMPLATE = (
    "{% for one in messages %}{{ one.role[0] + one.content + '|' }}{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def spec(base: Path, folder: Path, rows: list[dict[str, Any]] = KNOWN, **changed: Any) -> Any:
    training = write_rows(folder / "rows.jsonl", rows)
    validation = write_rows(folder / "held_out.jsonl", HELD_OUT)
    plain = {"n_epochs": 3, "batch_size": 4, "beta": 0.1, "learning_rate_multiplier": 50.0}
    return spec_of(base, folder, training, method="dpo", validation_url=f"file://{validation}", **plain | changed)


def events_of(folder: AttemptFolder) -> list[TrainingEvent]:
    root = Path(folder.root)
    return [msgspec.json.decode(file.read_bytes(), type=TrainingEvent) for file in sorted(root.glob("events/*.json"))]


def test_held_out_rows_are_preferred_as_the_known_ones_are(base: Path, tmp_path: Path) -> None:
    folder = train(spec(base, tmp_path))
    found = [checkpoint.metrics for checkpoint in folder.checkpoints()]
    assert [checkpoint.epoch for checkpoint in folder.checkpoints()] == [1, 2, 3]
    margins = [metrics["valid_reward_margin"] for metrics in found]
    assert 0 < margins[0] < margins[-1]
    assert found[-1]["valid_reward_accuracy"] == found[-1]["full_valid_reward_accuracy"] == 1.0
    counts = folder.counts()
    assert counts is not None
    assert counts.base["loss"] == math.log(2)
    assert found[-1]["valid_loss"] == found[-1]["full_valid_loss"] < math.log(2)
    first, *_, last = (event.data for event in events_of(folder) if "total_steps" in event.data)
    assert first["train_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert (first["train_reward_margin"], first["total_steps"]) == (0, 12)
    assert last["train_reward_margin"] > 0
    assert last["train_reward_preferred"] > last["train_reward_non_preferred"]
    assert 0 <= last["train_reward_accuracy"] <= 1
    assert 0 <= last["train_mean_token_accuracy"] <= 1


def test_it_goes_on_from_a_checkpoint_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(metrics: dict[str, float]) -> None:
        if metrics["step"] == 8:
            raise Killed

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = train(spec(base, whole))
    with pytest.raises(Killed):
        train(spec(base, cut), on_epoch=kill)
    folder = train(spec(base, cut, attempt=2, resume_url=f"file://{cut}/1"))
    assert any(event.message == "Going on after step 4 of 12" for event in events_of(folder))
    ours, theirs = (
        load_file(Path(one.root) / one.checkpoints()[-1].path / ADAPTER_WEIGHTS) for one in (folder, expected)
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_tokens_of_both_answers_count_each_with_its_prompt(base: Path, tmp_path: Path) -> None:
    rows = [pair("Say 1", "ab", "abcd")]
    folder = train(spec(base, tmp_path, rows, n_epochs=1, batch_size=1))
    prompt = len("|user\nSay 1|\n|assistant\n")  # a mark is one token
    counts = folder.counts()
    assert counts is not None
    assert counts.tokens_per_epoch == 2 * prompt + len("ab|") + len("abcd|")
    assert counts.tokens_per_epoch <= Dpo().check_row(rows[0]).text_tokens + 2 * 4 * len("|assistant\n|\n")


def test_rows_of_which_an_answer_is_cut_off_are_left_out(base: Path, tmp_path: Path) -> None:
    long = pair("x" * 200, "yes", "no")
    folder = train(spec(base, tmp_path, [*KNOWN[:2], long], n_epochs=1, batch_size=1))
    assert [event.message for event in events_of(folder) if event.level == "warn"] == [
        "1 rows are left out, because an answer is cut off whole"
    ]
    with pytest.raises(TrainingFailed, match="In no row do both answers begin"):
        train(spec(base, tmp_path, [long], attempt=2))


def test_a_token_over_the_end_of_the_prompt_belongs_to_the_answer(base: Path) -> None:
    """A tokenizer may join the prompt's end with an answer's beginning, and another answer's not."""
    letters = {letter: index for index, letter in enumerate("uabqx|")}
    joined = Tokenizer(models.BPE(vocab={**letters, "ab": 6}, merges=[("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=joined, eos_token="|")
    tokenizer.chat_template = SHORT_TEMPLATE
    [row] = encode_preferences([msgspec.convert(pair("q", "bx", "x"), PreferenceRow)], tokenizer, 100).pairs
    assert [tokenizer.decode(ids).replace(" ", "") for ids in (row.prompt_ids, row.chosen_ids, row.rejected_ids)] == [
        "uq|",
        "abx|",
        "ax|",
    ]


@pytest.fixture
async def jobs(cluster: Cluster) -> AsyncIterator[RayJobs]:
    async with aiohttp.ClientSession() as session:
        yield RayJobs(session, cluster.url, cluster.token_file)


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_in_ray_too_and_the_best_epoch_is_published(jobs: RayJobs, base: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "pairs.jsonl", [pair(f"Say {n}", f"Blue {n}", f"Red {n}") for n in range(4)])
    wanted = ray_job.spec_of("ftjob-dpo", 1, tmp_path, base, file, epochs=40)
    hyperparameters = msgspec.structs.replace(
        wanted.hyperparameters, beta=2.0, learning_rate_multiplier=100.0, early_stopping_patience=1
    )
    wanted = msgspec.structs.replace(wanted, method="dpo", hyperparameters=hyperparameters)
    folder = await ray_job.start(jobs, wanted)
    ended = await ray_job.end_of(jobs, wanted)
    assert ended is RunState.SUCCEEDED, await jobs.logs(submission_id(wanted.job, wanted.attempt))
    result = ray_job.result_of(folder)
    ray_job.check_published(folder, result)
    best = min(result.checkpoints, key=lambda checkpoint: checkpoint.metrics["valid_loss"])
    assert (folder / "adapter" / ADAPTER_WEIGHTS).read_bytes() == (folder / best.path / ADAPTER_WEIGHTS).read_bytes()
    assert result.metrics["valid_loss"] == best.metrics["valid_loss"] < result.metrics["base_valid_loss"]
    assert result.metrics["valid_reward_margin"] > 0
    prompt = len("|user\nSay 1|\n|assistant\n")
    tokens = 2 * prompt + len("Blue 1|") + len("Red 1|")
    assert result.trained_tokens == len(result.checkpoints) * 4 * tokens
