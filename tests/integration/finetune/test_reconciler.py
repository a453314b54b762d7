"""Jobs from their creation to their end, through the worker's real loops."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, RateLimited
from tokenyard.core.ids import AdapterId, new_job_id
from tokenyard.core.training import RunState, TrainingLimits, TrainingTerms
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.views import CheckpointView, JobView
from tokenyard.storage.database import Database


async def test_a_job_becomes_a_live_model_and_a_usage_event(stack: FinetuneStack) -> None:
    job = await stack.create()
    assert job.status == "validating_files"
    await stack.rounds(2)
    assert (await stack.job(job.id)).status == "running"
    run = f"{job.id}-1"
    assert stack.cluster.submissions == [run]
    assert stack.cluster.entrypoints[run].startswith("python -m tokenyard_deployments.training.job file://")
    spec = stack.cluster.specs[run]
    assert (spec.base_model, spec.hyperparameters, spec.seed) == ("small-model", job.hyperparameters, job.seed)
    assert (spec.method, spec.resources) == ("supervised", stack.policy.resources)
    await stack.cluster.tell(run, "Step 1", "Step 2")
    await stack.rounds(1)
    await stack.cluster.tell(run, "Step 3", first=3)
    await stack.cluster.succeed(run, tokens=1234)
    await stack.rounds(2)

    done = await stack.job(job.id)
    name = f"ft:small-model:acme:sky:{done.adapter}"
    assert (done.status, str(done.model_name), done.trained_tokens) == ("succeeded", name, 1234)
    assert JobView.of(done).fine_tuned_model == name
    assert stack.catalog.lives[adapter_of(done)] == ["checking", "live"]
    [event] = await stack.charges()
    assert (event.job, event.trained_tokens, event.model, event.price) == (job.id, 1234, name, job.price)
    assert await stack.blobs.names(f"adapters/org_acme/{done.adapter}") == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    messages = await stack.messages(done)
    assert [message.partition(":")[0] for message in messages] == [
        "Created fine-tuning job",
        "Validating training file",
        "The training file has 20 rows of 580 tokens, 1 of them learnt; half of the rows have up to 580 tokens, the "
        "longest 580",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1",
        "Step 2",
        "Step 3",
        "Trained on 1234 tokens; checking the model",
        "New fine-tuned model created",
        "The job has successfully completed",
    ]
    [row] = await stack.jobs.checkpoints(job.organization, job.id, limit=10, after=None)
    checkpoint = CheckpointView.of(row, done, await stack.catalog.fine_tunes(job.organization))
    assert checkpoint.fine_tuned_model_checkpoint == f"{name}:ckpt-step-10"
    assert checkpoint.metrics == {"step": 10, "train_loss": 0.5}


async def test_a_file_that_changed_after_its_upload_fails_the_job_and_names_the_line(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.blobs.write(f"files/org_acme/{job.training_file}", rows(1) + b"nonsense\n")
    await stack.rounds(2)
    failed = await stack.job(job.id)
    assert failed.status == "failed"
    assert "line 2: not JSON" in error_of(failed).message
    error = JobView.of(failed).error
    assert error is not None
    assert error.param == "training_file"
    assert [event.trained_tokens for event in await stack.charges()] == [0]
    assert stack.cluster.submissions == []


async def test_a_file_for_another_method_does_not_train(stack: FinetuneStack) -> None:
    who = principal()
    file = await stack.files.get(who.organization, await stack.upload(who, rows(20)))
    assert file.summary is not None
    other = msgspec.structs.replace(file, summary={**file.summary, "method": "preferences"})
    await stack.files.complete(who.organization, other, stack.quota)
    with pytest.raises(InvalidRequest, match="is for the method 'preferences'") as refused:
        await stack.create(who, validation_file=file.id)
    assert refused.value.param == "validation_file"
    assert stack.reservations.open == {}


async def test_one_job_trains_at_a_time_and_the_others_say_what_they_wait_for(stack: FinetuneStack) -> None:
    first = await stack.create()
    stack.clock.advance(1)
    second = await stack.create(principal("rival"))
    stack.clock.advance(1)
    third = await stack.create()
    await stack.rounds(3)
    states = [(await stack.job(job.id)).state for job in (first, second, third)]
    assert states == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    for waiting in (second, third):
        assert (await stack.messages(waiting))[-1] == "The job is waiting for room in the training cluster"
    await stack.cluster.succeed(f"{first.id}-1", tokens=1)
    await stack.rounds(3)
    states = [(await stack.job(job.id)).state for job in (first, second, third)]
    assert states == [JobState.SUCCEEDED, JobState.RUNNING, JobState.QUEUED]
    told = [message for message in await stack.messages(third) if "waiting" in message]
    assert len(told) == 1, "a queue that moves adds no event"


async def test_who_came_late_with_one_job_waits_for_one_of_many(stack: FinetuneStack) -> None:
    mine = []
    for _ in range(3):
        mine.append(await stack.create())
        stack.clock.advance(1)
    await stack.rounds(2)
    theirs = await stack.create(principal("rival"))
    await stack.rounds(2)
    await stack.cluster.succeed(f"{mine[0].id}-1", tokens=100)
    await stack.rounds(3)
    states = [(await stack.job(job.id)).state for job in (*mine, theirs)]
    assert states == [JobState.SUCCEEDED, JobState.QUEUED, JobState.QUEUED, JobState.RUNNING]


async def test_jobs_train_side_by_side_as_the_cluster_has_room(database: Database, tmp_path: Path) -> None:
    stack = FinetuneStack(database, tmp_path, TrainingPolicy(max_running=None))
    stack.cluster.nodes = [{"CPU": 2.0, "memory": 1e9}, {"CPU": 0.5}]
    jobs = []
    for name in ("acme", "acme", "rival", "third"):
        jobs.append(await stack.create(principal(name)))
        stack.clock.advance(1)
    await stack.rounds(3)
    states = [(await stack.job(job.id)).state for job in jobs]
    assert states == [JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.QUEUED]
    assert len(stack.cluster.submissions) == 2, "what has no room is not in the cluster's own queue"
    stack.cluster.nodes[1]["CPU"] = 1.0
    await stack.rounds(3)
    assert [(await stack.job(job.id)).state for job in jobs].count(JobState.RUNNING) == 3
    assert (await stack.job(jobs[1].id)).deadline_ms is None, "waiting is no part of the time that it may take"


async def test_nothing_starts_in_a_cluster_that_does_not_answer(stack: FinetuneStack) -> None:
    stack.cluster.down = True
    job = await stack.create()
    await stack.rounds(3)
    assert (await stack.messages(job))[-1] == "The job is waiting for the training cluster, which does not answer"
    stack.cluster.down = False
    await stack.rounds(2)
    assert (await stack.job(job.id)).state is JobState.RUNNING


async def test_a_plan_bounds_jobs_and_tokens(database: Database, tmp_path: Path) -> None:
    stack = FinetuneStack(database, tmp_path, TrainingPolicy(max_running=None))
    stack.cluster.nodes = [{"CPU": 8.0}]
    acme = principal().organization
    limits = TrainingLimits(running=1, unfinished=3)
    stack.plans.said[acme] = TrainingTerms(limits=limits)
    jobs = []
    for _ in range(3):
        jobs.append(await stack.create())
        stack.clock.advance(1)
    with pytest.raises(RateLimited):
        await stack.create()
    await stack.rounds(3)
    assert [(await stack.job(job.id)).state for job in jobs].count(JobState.RUNNING) == 1
    waiting = (await stack.messages(jobs[2]))[-1]
    assert waiting == "The job is waiting for another job of your organization to finish training"
    reserved = (await stack.job(jobs[0].id)).reserved_tokens
    stack.plans.said[acme] = TrainingTerms(limits=TrainingLimits(tokens_per_day=2 * reserved))
    await stack.rounds(3)
    assert [(await stack.job(job.id)).state for job in jobs].count(JobState.RUNNING) == 2
    assert (await stack.messages(jobs[2]))[-1].endswith("as many tokens as it may")
    await stack.cluster.succeed(f"{jobs[0].id}-1", tokens=1)
    await stack.rounds(3)
    assert (await stack.job(jobs[2].id)).state is JobState.QUEUED, "one token more than a day's"
    await stack.cluster.succeed(f"{jobs[1].id}-1", tokens=1)
    await stack.rounds(3)
    assert (await stack.job(jobs[2].id)).state is JobState.RUNNING, "what was not trained is given back"
    stack.plans.said[acme] = TrainingTerms(limits=TrainingLimits(tokens_per_day=reserved - 1))
    with pytest.raises(InvalidRequest, match="a day"):
        await stack.create()


async def test_a_lost_attempt_goes_on_from_the_last_checkpoint_until_the_third_is_lost(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.train(f"{job.id}-1", 10, tokens=77)
    stack.cluster.forget(f"{job.id}-1")
    await stack.rounds(2)
    second = stack.cluster.specs[f"{job.id}-2"]
    assert second.resume_url == stack.cluster.specs[f"{job.id}-1"].output_url
    stack.cluster.set_state(f"{job.id}-2", RunState.FAILED)
    await stack.rounds(2)
    third = stack.cluster.specs[f"{job.id}-3"]
    assert third.resume_url == second.resume_url  # the second made none of its own
    await stack.cluster.fail(f"{job.id}-3", "node_lost", "The node went away.", retryable=True)
    await stack.rounds(3)
    failed = await stack.job(job.id)
    assert (failed.status, error_of(failed).code) == ("failed", "node_lost")
    assert error_of(failed).message == "Training broke off 3 times; the last attempt is over. The node went away."
    assert len(stack.cluster.submissions) == 3
    assert [event.trained_tokens for event in await stack.charges()] == [0]
    assert "Training was lost; starting attempt 2 from step 10 of 100" in await stack.messages(failed)


async def test_an_error_of_the_data_is_not_tried_again(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.fail(f"{job.id}-1", "row_too_long", "Row 3 does not fit.")
    await stack.rounds(2)
    failed = await stack.job(job.id)
    assert failed.error == JobError("row_too_long", "Row 3 does not fit.")
    assert len(stack.cluster.submissions) == 1
    assert [event.trained_tokens for event in await stack.charges()] == [0]


async def test_cancelling_stops_training_and_charges_what_was_done(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    assert (await stack.jobs.cancel(job.organization, job.id)).status == "cancelled"
    await stack.cluster.stopped_after(f"{job.id}-1", tokens=77)
    await stack.rounds(3)
    cancelled = await stack.job(job.id)
    assert (cancelled.state, cancelled.trained_tokens) == (JobState.CANCELLED, 77)
    assert stack.cluster.stops == [f"{job.id}-1"]
    assert [event.trained_tokens for event in await stack.charges()] == [77]
    assert cancelled.adapter is None


async def test_cancelling_before_training_starts_nothing(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.jobs.cancel(job.organization, job.id)
    await stack.rounds(3)
    assert (await stack.job(job.id)).state is JobState.CANCELLED
    assert stack.cluster.submissions == []
    assert [event.trained_tokens for event in await stack.charges()] == [0]


async def test_cancelling_while_the_model_is_checked_retires_it(stack: FinetuneStack) -> None:
    stack.replicas.present = False
    job = await _trained(stack)
    await stack.rounds(2)
    assert "The job is waiting for a replica of the base model" in await stack.messages(job)
    await stack.jobs.cancel(job.organization, job.id)
    stack.replicas.present = True
    await stack.rounds(3)
    cancelled = await stack.job(job.id)
    assert (cancelled.state, cancelled.trained_tokens) == (JobState.CANCELLED, 500)
    assert stack.catalog.lives[adapter_of(cancelled)] == ["checking", "retired"]


async def test_a_run_that_started_while_its_job_was_cancelled_is_stopped(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stack.create()
    await stack.round()
    submit = stack.cluster.submit

    async def slowly(submission: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        await stack.jobs.cancel(job.organization, job.id)
        await submit(submission, entrypoint, metadata=metadata)

    monkeypatch.setattr(stack.cluster, "submit", slowly)
    await stack.rounds(4)
    assert (await stack.job(job.id)).state is JobState.CANCELLED
    assert not any(run.state.is_active for run in stack.cluster.runs.values())


async def test_a_run_that_a_worker_starts_after_its_lease_and_its_job_ended_is_stopped(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stack.create()
    await stack.round()
    submit = stack.cluster.submit

    async def paused(submission: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        monkeypatch.setattr(stack.cluster, "submit", submit)
        stack.outlive_leases()
        await stack.jobs.cancel(job.organization, job.id)
        other = stack.new_worker()
        for _ in range(3):
            await stack.round(other)
        assert (await stack.job(job.id)).state is JobState.CANCELLED
        await submit(submission, entrypoint, metadata=metadata)

    monkeypatch.setattr(stack.cluster, "submit", paused)
    await stack.rounds(2)
    assert stack.cluster.submissions == stack.cluster.stops == [f"{job.id}-1"]
    assert not any(run.state.is_active for run in stack.cluster.runs.values())


async def test_a_run_that_two_workers_start_goes_on(stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await stack.create()
    await stack.round()
    submit = stack.cluster.submit

    async def paused(submission: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        monkeypatch.setattr(stack.cluster, "submit", submit)
        stack.outlive_leases()
        await stack.round(stack.new_worker())
        await submit(submission, entrypoint, metadata=metadata)

    monkeypatch.setattr(stack.cluster, "submit", paused)
    await stack.rounds(2)
    assert (stack.cluster.submissions, stack.cluster.stops) == ([f"{job.id}-1"], [])
    assert (await stack.job(job.id)).state is JobState.RUNNING


async def test_training_that_takes_too_long_is_stopped(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.begin(f"{job.id}-1")
    await stack.rounds(1)
    stack.clock.advance(700)
    await stack.rounds(3)
    failed = await stack.job(job.id)
    assert (failed.status, error_of(failed).code) == ("failed", "training_timeout")
    assert stack.cluster.stops == [f"{job.id}-1"]


async def test_waiting_for_room_takes_none_of_the_time_to_train(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    run = f"{job.id}-1"
    for state in (RunState.PENDING, RunState.RUNNING):  # in Ray's queue, and then for a worker
        stack.cluster.set_state(run, state)
        await stack.rounds(1)
        stack.clock.advance(10_000)
    await stack.cluster.begin(run)
    await stack.rounds(1)
    stack.clock.advance(599)
    await stack.cluster.succeed(run, tokens=5)
    await stack.rounds(2)
    assert (await stack.job(job.id)).status == "succeeded"


async def test_a_cluster_that_is_away_is_waited_for(stack: FinetuneStack) -> None:
    job = await stack.create()
    stack.cluster.down = True
    await stack.rounds(3)
    assert "The job is waiting for the training cluster, which does not answer" in await stack.messages(job)
    stack.cluster.down = False
    await stack.rounds(2)
    stack.cluster.set_state(f"{job.id}-1", RunState.PENDING)
    await stack.rounds(1)
    assert (await stack.job(job.id)).waits_for == "room in the training cluster"
    await stack.cluster.succeed(f"{job.id}-1", tokens=5)
    await stack.rounds(2)
    assert (await stack.job(job.id)).status == "succeeded"


@pytest.mark.parametrize("told", [True, False])
async def test_an_operator_who_stops_the_run_fails_the_job(stack: FinetuneStack, told: bool) -> None:
    job = await stack.create()
    await stack.rounds(2)
    if told:
        await stack.cluster.stopped_after(f"{job.id}-1", tokens=77)
        await stack.rounds(1)
    stack.cluster.set_state(f"{job.id}-1", RunState.STOPPED)
    await stack.rounds(3)
    assert error_of(await stack.job(job.id)).code == "training_stopped"
    assert stack.cluster.submissions == [f"{job.id}-1"]


@pytest.mark.parametrize("seen", [RunState.FAILED, RunState.SUCCEEDED, None])
async def test_a_signal_that_nobody_of_us_sent_is_a_lost_attempt(stack: FinetuneStack, seen: RunState | None) -> None:
    """A drained node ends its processes with the same signal as a stop through Ray."""
    job = await stack.create()
    await stack.rounds(2)
    run = f"{job.id}-1"
    await stack.cluster.train(run, 10, tokens=77)
    await stack.cluster.stopped_after(run, tokens=77)
    await stack.rounds(2)
    assert (await stack.job(job.id)).attempt == 1, "Ray still has to say why it ended"
    if seen is None:
        stack.cluster.forget(run)
    else:
        stack.cluster.set_state(run, seen)
    await stack.rounds(2)
    assert (await stack.job(job.id)).state is JobState.RUNNING
    assert stack.cluster.submissions == [run, f"{job.id}-2"]
    assert stack.cluster.specs[f"{job.id}-2"].resume_url == stack.cluster.specs[run].output_url
    await stack.cluster.succeed(f"{job.id}-2", tokens=500)
    await stack.rounds(2)
    assert (await stack.job(job.id)).status == "succeeded"
    assert [event.trained_tokens for event in await stack.charges()] == [500]


async def test_a_stopped_attempt_whose_end_ray_never_sees_runs_out_of_time(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.stopped_after(f"{job.id}-1", tokens=77)
    await stack.rounds(1)
    stack.clock.advance(700)
    await stack.rounds(3)
    failed = await stack.job(job.id)
    assert (failed.status, error_of(failed).code) == ("failed", "training_timeout")
    assert stack.cluster.stops == [f"{job.id}-1"]


@pytest.mark.parametrize(
    ("shift", "said"), [(0.0, "learned nothing"), (float("nan"), "not numbers"), (float("inf"), "not numbers")]
)
async def test_a_model_that_fails_the_canary_never_goes_live(stack: FinetuneStack, shift: float, said: str) -> None:
    stack.replicas.shift = shift
    job = await _trained(stack)
    await stack.rounds(2)
    failed = await stack.job(job.id)
    assert failed.status == "failed"
    assert said in error_of(failed).message
    assert stack.catalog.lives[adapter_of(failed)] == ["checking", "retired"]
    assert [event.trained_tokens for event in await stack.charges()] == [0]
    assert JobView.of(failed).fine_tuned_model is None


@pytest.mark.parametrize("damage", ["weights", "manifest", "rank"])
async def test_a_damaged_adapter_never_goes_live(stack: FinetuneStack, damage: str) -> None:
    job = await stack.create()
    await stack.rounds(2)
    run = f"{job.id}-1"
    await stack.cluster.succeed(run, tokens=5, rank=64 if damage == "rank" else 8)
    folder = f"jobs/org_acme/{job.id}/1/adapter"
    if damage == "weights":
        await stack.blobs.write(f"{folder}/adapter_model.safetensors", b"other")
    if damage == "manifest":
        manifest = json.loads(await stack.blobs.read(f"{folder}/manifest.json"))
        await stack.blobs.write(f"{folder}/manifest.json", json.dumps(manifest | {"digest": "0" * 64}).encode())
    await stack.rounds(2)
    failed = await stack.job(job.id)
    assert (failed.status, error_of(failed).code) == ("failed", "model_check_failed")
    assert "live" not in stack.catalog.lives.get(adapter_of(failed), [])


async def test_a_replica_that_is_lost_or_full_is_tried_again_until_the_deadline(stack: FinetuneStack) -> None:
    stack.replicas.lost = True
    job = await _trained(stack)
    await stack.rounds(2)
    stack.replicas.lost, stack.replicas.full = False, True
    await stack.rounds(2)
    assert "The job is waiting for a replica that takes the new model" in await stack.messages(job)
    stack.clock.advance(stack.policy.checking_timeout_s)
    await stack.rounds(2)
    assert error_of(await stack.job(job.id)).code == "timeout"


async def test_a_job_whose_creator_died_is_ended_and_released(stack: FinetuneStack) -> None:
    job = await stack.create()
    creating = job_before_reservation(job)
    await stack.jobs.begin(job.organization, [creating])
    await stack.rounds(2)
    assert (await stack.job(creating.id)).state is JobState.CREATING
    stack.clock.advance(61)
    await stack.rounds(2)
    assert (await stack.job(creating.id)).state is JobState.FAILED
    assert creating.id in [event.job for event in await stack.charges()]


async def test_never_more_is_charged_than_was_reserved(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=10**9)
    await stack.rounds(2)
    done = await stack.job(job.id)
    assert done.trained_tokens == done.reserved_tokens < job.reserved_tokens


async def test_two_workers_never_work_on_one_job_at_once(stack: FinetuneStack) -> None:
    jobs = [await stack.create(principal(f"tenant{number}")) for number in range(4)]
    one = await stack.operator.claim("one", limit=3)
    two = await stack.operator.claim("two", limit=3)
    assert sorted(job.id for job in one + two) == sorted(job.id for job in jobs)
    assert await stack.operator.claim("three", limit=3) == []
    stack.outlive_leases()
    assert len(await stack.operator.claim("three", limit=9)) == 4


async def test_expired_and_deleted_files_lose_their_bytes_but_not_under_a_job(stack: FinetuneStack) -> None:
    job = await stack.create()
    unused = await stack.upload(principal(), rows(1))
    await stack.files.begin_delete(principal().organization, unused)
    await stack.rounds(1)
    assert await stack.blobs.names("files/org_acme") == [job.training_file]


def error_of(job: Job) -> JobError:
    assert job.error is not None
    return job.error


def adapter_of(job: Job) -> AdapterId:
    assert job.adapter is not None
    return job.adapter


async def _trained(stack: FinetuneStack) -> Job:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=500)
    return job


def job_before_reservation(job: Job) -> Job:
    return msgspec.structs.replace(job, id=new_job_id(), state=JobState.CREATING, version=0, deadline_ms=None)
