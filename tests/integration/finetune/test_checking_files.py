"""A job's files are checked in the cluster before it is queued, whatever becomes of the check."""

from collections.abc import Mapping

import msgspec
import pytest

from support.finetune.ports import TRAINING_RATE
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.datasets.checking import (
    DATA_REPORT,
    CheckError,
    CheckResult,
    DataFinding,
    DataReport,
    FileReport,
    TokenLengths,
)
from tokenyard.core.training import RunState, attempts_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.finetune.views import JobView

LENGTHS = TokenLengths(shortest=7, median=9, p90=40, p99=80, longest=99, rows_up_to={"16": 19, "128": 1})


@pytest.fixture
def held(stack: FinetuneStack) -> FinetuneStack:
    stack.cluster.holds_checks = True
    return stack


async def state(stack: FinetuneStack, job: Job) -> JobState:
    return (await stack.job(job.id)).state


async def test_the_report_is_kept_and_its_figures_are_events(held: FinetuneStack) -> None:
    job = await held.create(validation_file=await held.upload(principal(), rows(2)))
    await held.round()
    run = f"{job.id}-check-1"
    spec = held.cluster.checks[run]
    assert (spec.base_model_path, spec.max_seq_length, spec.method) == ("/models/small-model", 2048, "supervised")
    assert sorted(spec.files) == ["training_file", "validation_file"]
    assert await state(held, job) is JobState.VALIDATING
    report = DataReport(
        job=job.id,
        checked_at=1,
        max_seq_length=2048,
        files={"training_file": FileReport(rows=20, tokens=210, learnt=60, lengths=LENGTHS)},
        findings=(
            DataFinding(code="cut", file="training_file", count=3, message="3 rows are cut", lines=(4, 5)),
            DataFinding(code="leaked", file="validation_file", count=1, message="1 row is not held out", lines=(2,)),
        ),
    )
    await held.cluster.end_check(run, CheckResult(report=report))
    await held.round()
    assert await state(held, job) is JobState.QUEUED
    kept = await held.blobs.read(f"{attempts_folder(job.organization, job.id)}/{DATA_REPORT}")
    assert msgspec.json.decode(kept, type=DataReport) == report
    assert (await held.messages(job))[2:] == [
        "The training file has 20 rows of 210 tokens, 60 of them learnt; half of the rows have up to 9 tokens, the "
        "longest 99",
        "The training file: 3 rows are cut (lines 4, 5, ...)",
        "The validation file: 1 row is not held out (line 2)",
        "Files validated, moving job to queued state",
    ]
    queued = await held.job(job.id)
    assert job.hyperparameters is not None
    assert queued.reserved_tokens == job.hyperparameters.n_epochs * 210 < job.reserved_tokens
    assert queued.reserved_amount == TRAINING_RATE * queued.reserved_tokens == held.reservations.open[job.id]
    events = await held.jobs.events(job.organization, job.id, limit=4, after=None)
    assert [event.level for event in events] == ["info", "warn", "warn", "info"]
    assert events[3].data == {"rows": 20, "tokens": 210, "learnt_tokens": 60}


async def test_lines_that_are_wrong_end_the_job_by_the_name_of_their_file(held: FinetuneStack) -> None:
    job = await held.create()
    await held.round()
    error = CheckError("invalid_training_file", "The training file cannot be used: line 3: no", "training_file")
    await held.cluster.end_check(f"{job.id}-check-1", CheckResult(error=error))
    await held.rounds(2)
    shown = JobView.of(await held.job(job.id))
    assert shown.status == "failed"
    assert shown.error is not None
    assert (shown.error.code, shown.error.param) == ("invalid_training_file", "training_file")
    assert [event.trained_tokens for event in await held.charges()] == [0]


async def test_a_lost_check_is_made_again_and_the_third_is_the_last(held: FinetuneStack) -> None:
    job = await held.create()
    await held.round()
    held.cluster.forget(f"{job.id}-check-1")
    await held.rounds(2)
    held.cluster.set_state(f"{job.id}-check-2", RunState.FAILED)
    await held.rounds(2)
    out_of_memory = CheckError("validation_out_of_memory", "It took more memory than is allowed.", retryable=True)
    await held.cluster.end_check(f"{job.id}-check-3", CheckResult(error=out_of_memory))
    await held.rounds(2)
    failed = await held.job(job.id)
    assert (failed.state, failed.error and failed.error.code) == (JobState.FAILED, "validation_out_of_memory")
    assert list(held.cluster.checks) == [f"{job.id}-check-{run}" for run in (1, 2, 3)]
    assert (await held.messages(job)).count("The check of the files was lost; starting it again") == 2


async def test_a_check_that_hangs_is_stopped_and_made_again(held: FinetuneStack) -> None:
    job = await held.create()
    await held.rounds(2)
    held.clock.advance(held.policy.validation_timeout_s + 61)
    await held.round()
    assert held.cluster.stops == [f"{job.id}-check-1"]
    await held.round()
    await held.cluster.check(f"{job.id}-check-2")
    await held.rounds(2)
    assert (await held.job(job.id)).state is JobState.RUNNING
    assert "The check of the files took too long; starting it again" in await held.messages(job)


@pytest.mark.parametrize("started", [False, True])
async def test_while_the_cluster_is_away_the_job_waits_and_says_so(held: FinetuneStack, started: bool) -> None:
    if started:
        job = await held.create()
        await held.rounds(2)
        held.cluster.down = True
    else:
        held.cluster.down = True
        job = await held.create()
    for _ in range(5):  # many times longer than a check may take
        await held.round()
        held.clock.advance(held.policy.validation_timeout_s)
    waiting = await held.job(job.id)
    assert (waiting.state, waiting.waits_for) == (
        JobState.VALIDATING,
        "the training cluster, which does not answer",
    )
    held.cluster.down = False
    await held.round()
    await held.cluster.check(f"{job.id}-check-1")
    await held.rounds(2)
    assert (await held.job(job.id)).state is JobState.RUNNING
    said = "The job is waiting for the training cluster, which does not answer"
    assert (await held.messages(job)).count(said) == 1


async def test_a_check_without_room_waits_and_its_time_begins_when_it_runs(held: FinetuneStack) -> None:
    job = await held.create()
    await held.round()
    run = f"{job.id}-check-1"
    held.cluster.set_state(run, RunState.PENDING)
    for _ in range(3):
        await held.round()
        held.clock.advance(held.policy.validation_timeout_s)
    assert (await held.job(job.id)).waits_for == "room in the training cluster"
    held.cluster.set_state(run, RunState.RUNNING)
    await held.rounds(2)
    await held.cluster.check(run)
    await held.rounds(2)
    assert (await held.job(job.id)).state is JobState.RUNNING


async def test_a_count_above_the_bound_sets_nothing_more_aside(held: FinetuneStack) -> None:
    job = await held.create()
    await held.round()
    many = FileReport(rows=20, tokens=job.reserved_tokens + 1, learnt=60, lengths=LENGTHS)
    report = DataReport(job=job.id, checked_at=1, max_seq_length=2048, files={"training_file": many})
    await held.cluster.end_check(f"{job.id}-check-1", CheckResult(report=report))
    await held.round()
    assert (await held.job(job.id)).reserved_tokens == job.reserved_tokens
    assert held.reservations.open[job.id] == job.reserved_amount


async def test_cancelling_stops_the_check_and_costs_nothing(held: FinetuneStack) -> None:
    job = await held.create()
    await held.round()
    await held.jobs.cancel(job.organization, job.id)
    await held.round()
    held.clock.advance(1)
    await held.rounds(2)
    assert held.cluster.stops == [f"{job.id}-check-1"]
    assert await state(held, job) is JobState.CANCELLED
    assert [event.trained_tokens for event in await held.charges()] == [0]


async def test_a_check_that_started_while_its_job_was_cancelled_is_stopped(
    held: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await held.create()
    submit = held.cluster.submit

    async def slowly(submission: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        await held.jobs.cancel(job.organization, job.id)
        await submit(submission, entrypoint, metadata=metadata)

    monkeypatch.setattr(held.cluster, "submit", slowly)
    await held.round()
    assert held.cluster.stops == [f"{job.id}-check-1"]
    await held.rounds(3)
    assert await state(held, job) is JobState.CANCELLED


async def test_whoever_dies_after_starting_a_check_starts_no_second_one(
    held: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await held.create()
    submit = held.cluster.submit
    died = False

    async def dying(submission: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        nonlocal died
        await submit(submission, entrypoint, metadata=metadata)
        if not died:
            died = True
            raise ConnectionResetError

    monkeypatch.setattr(held.cluster, "submit", dying)
    with pytest.raises(ExceptionGroup):
        await held.round()
    held.outlive_leases()
    await held.round()
    await held.cluster.check(f"{job.id}-check-1")
    await held.rounds(2)
    assert list(held.cluster.checks) == [f"{job.id}-check-1"]
    assert await state(held, job) is JobState.RUNNING
