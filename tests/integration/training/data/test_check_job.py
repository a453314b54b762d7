"""The check of a job's files as a real Ray job: through the worker's loops, and within its bounds."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from support.fakes.tiny_model import save_tiny_model
from support.finetune.ports import SMALL_MODEL, FixedModels
from support.finetune.stack import FinetuneStack, principal
from support.ray_cluster.private_ray import Cluster
from tokenyard.clients.ray_jobs import RayJobs
from tokenyard.core.datasets.checking import DATA_REPORT, CheckLimits, CheckResult, CheckSpec, DataReport, check_id
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import attempts_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.storage.database import Database

# The same on any database: what is slow here is Ray.
pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("database", ["sqlite"], indirect=True)]

LIMIT_S = 240.0
Row = dict[str, Any]


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
async def runs(cluster: Cluster) -> AsyncIterator[RayJobs]:
    async with aiohttp.ClientSession() as session:
        yield RayJobs(session, cluster.url, cluster.token_file)


@pytest.fixture
def stack(database: Database, tmp_path: Path) -> FinetuneStack:
    return FinetuneStack(database, tmp_path)


def row(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def lines(*rows: Row) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


async def checked(stack: FinetuneStack, runs: RayJobs, base_model: Path, *files: bytes) -> Job:
    """Create a job over the files and let a worker bring it on until it is queued or has failed."""
    model = msgspec.structs.replace(SMALL_MODEL, path=str(base_model), context_length=60)
    worker = stack.new_worker(runs=runs, models=FixedModels(model))
    ids = [await stack.upload(principal(), file) for file in files]
    names = ("training_file", "validation_file")
    asked = {"model": "small-model", "suffix": "sky", **dict(zip(names, ids, strict=False))}
    job = await stack.creation.create(principal(), JobRequest.model_validate(asked))
    deadline = time.monotonic() + LIMIT_S
    while (await stack.job(job.id)).state is JobState.VALIDATING:
        assert time.monotonic() < deadline, await stack.messages(job)
        await stack.round(worker)
        await asyncio.sleep(0.2)
    return await stack.job(job.id)


async def test_files_are_checked_with_the_models_own_template(
    stack: FinetuneStack, runs: RayJobs, base_model: Path
) -> None:
    training = lines(row("a", "one"), row("a", "one"), row("b" * 90, "two"), row("c", "write to a.b@example.com"))
    job = await checked(stack, runs, base_model, training, lines(row("A", " one"), row("d", "x" * 80)))
    assert job.state is JobState.QUEUED, job.error
    data = await stack.blobs.read(f"{attempts_folder(job.organization, job.id)}/{DATA_REPORT}")
    report = msgspec.json.decode(data, type=DataReport)
    # <|im_start|> + "user\n" + 1 + <|im_end|> + "\n", and <|im_start|> + "assistant\n" + 3 + <|im_end|> + "\n"
    short = (1 + 5 + 1 + 1 + 1) + (1 + 10 + 3 + 1 + 1)
    training_file = report.files["training_file"]
    assert (training_file.rows, training_file.tokens) == (4, short + short + 60 + short + 21)
    assert training_file.learnt == (3 + 1) + (3 + 1) + 0 + (24 + 1)
    assert training_file.lengths.longest == short + 89
    assert {(one.file, one.code): one.lines for one in report.findings} == {
        ("training_file", "duplicate"): (2,),
        ("training_file", "nothing_learnt"): (3,),
        ("training_file", "personal_data"): (4,),
        ("validation_file", "leaked"): (1,),
        ("validation_file", "cut"): (2,),
    }
    assert b"example.com" not in data
    assert "Files validated, moving job to queued state" in await stack.messages(job)


async def test_what_only_the_template_shows_to_be_wrong_is_said_before_anything_is_queued(
    stack: FinetuneStack, runs: RayJobs, base_model: Path
) -> None:
    weather = [{"type": "function", "function": {"name": "weather"}}]
    job = await checked(stack, runs, base_model, lines(row("a", "one"), {**row("b", "two"), "tools": weather}))
    assert job.outcome is JobOutcome.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert job.error.message == (
        "The training file cannot be used: line 2: this model's chat template does not show tools"
    )


async def test_a_check_that_is_killed_is_made_again(
    stack: FinetuneStack, runs: RayJobs, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = runs.submit

    async def stopped_at_once(submission_id: str, entrypoint: str, *, metadata: dict[str, str]) -> None:
        first = submission_id.endswith("-1")
        await submit(submission_id, "sh -c 'kill -9 $$'" if first else entrypoint, metadata=metadata)

    monkeypatch.setattr(runs, "submit", stopped_at_once)
    job = await checked(stack, runs, base_model, lines(row("a", "one")))
    assert (job.state, job.check_run) == (JobState.QUEUED, 2)
    assert "The check of the files was lost; starting it again" in await stack.messages(job)
    assert await runs.status(check_id(job.id, 2)) is not None


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (CheckLimits(timeout_s=0.001), "validation_timeout"),
        (CheckLimits(timeout_s=LIMIT_S, memory_bytes=300 << 20), "validation_out_of_memory"),
    ],
)
def test_a_check_ends_at_its_bounds_and_says_so(
    tmp_path: Path, base_model: Path, limits: CheckLimits, code: str
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(*[row(str(n), "one") for n in range(2000)]))
    spec = CheckSpec(
        job=JobId("ftjob-bounded"),
        run=1,
        organization=OrganizationId("org_test"),
        method="supervised",
        base_model_path=str(base_model),
        max_seq_length=256,
        files={"training_file": f"file://{tmp_path / 'rows.jsonl'}"},
        output_url=f"file://{tmp_path / 'out'}",
        limits=limits,
    )
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(spec))
    command = [sys.executable, "-m", "tokenyard_deployments.training.data.job", f"file://{tmp_path / 'spec.json'}"]
    ended = subprocess.run(command, check=False, capture_output=True, timeout=LIMIT_S)
    result = msgspec.json.decode((tmp_path / "out" / "result.json").read_bytes(), type=CheckResult)
    assert ended.returncode == 1
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == (code, True)
