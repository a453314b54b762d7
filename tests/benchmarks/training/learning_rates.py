"""What held-out loss each learning rate comes to on the shipped recipes, all else as "auto" decides it.

`python -m benchmarks.training.learning_rates <recipe>:<multiplier>,... ...` adds what it finds to
build/bench/learning_rates.json. What `auto` is for a model, its file says; this is where those numbers come from.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import yaml

from benchmarks.figures import add_figures
from benchmarks.training.attempts import run_attempt
from support.ray_cluster.private_ray import private_ray
from support.ray_cluster.small_model import pulled
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import RESULT_FILE, TrainingResult, TrainingSpec
from tokenyard.finetune.methods.dpo import DpoHyperparameters
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters
from tokenyard.settings import shipped

CONTEXT, RANK = 1024, 16


class Trial(NamedTuple):
    recipe: str
    multiplier: float


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        asyncio.run(_measure(list(_trials(arguments)), Path(name)))


def _trials(arguments: list[str]) -> Iterator[Trial]:
    for argument in arguments:
        recipe, multipliers = argument.split(":")
        yield from (Trial(recipe, float(multiplier)) for multiplier in multipliers.split(","))


async def _measure(trials: list[Trial], folder: Path) -> None:
    with private_ray() as cluster:
        async with aiohttp.ClientSession() as session:
            jobs = RayJobs(session, cluster.url, cluster.token_file)
            for number, trial in enumerate(trials):
                ended = await run_attempt(jobs, _spec(trial, folder / str(number)))
                metrics = msgspec.json.decode((ended / RESULT_FILE).read_bytes(), type=TrainingResult).metrics
                add_figures(
                    "learning_rates",
                    {
                        f"{trial.recipe}_x{trial.multiplier:g}_loss": round(metrics["full_valid_loss"], 4),
                        f"{trial.recipe}_base_loss": round(metrics["base_valid_loss"], 4),
                    },
                )


def _spec(trial: Trial, folder: Path) -> TrainingSpec:
    recipe = shipped("deployments/recipes") / trial.recipe
    method = yaml.safe_load((recipe / "recipe.yaml").read_text()).get("method", "supervised")
    asked = (DpoHyperparameters if method == "dpo" else RequestedHyperparameters)(
        learning_rate_multiplier=trial.multiplier
    )
    rows = len((recipe / "train.jsonl").read_text().splitlines())
    return TrainingSpec(
        job=JobId(f"ftjob-{folder.name}"),
        attempt=1,
        organization=OrganizationId("org_bench"),
        base_model="small",
        method=method,
        base_model_path=str(pulled()),
        training_url=f"file://{recipe}/train.jsonl",
        validation_url=f"file://{recipe}/valid.jsonl",
        output_url=f"file://{folder}",
        hyperparameters=asked.resolved(rows, auto_multiplier=1.0),
        seed=1,
        max_seq_length=CONTEXT,
        max_lora_rank=RANK,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
