"""The result file of a job: one line a step, there as soon as the job has ended, once, whoever dies."""

import contextlib
import csv
import io
import struct
from collections.abc import Iterator

import pytest
from tensorboardX.proto.event_pb2 import Event

from support.finetune.stack import FinetuneStack, principal
from support.openai_schema import check_openai_schema
from tokenyard.core.errors import NotFound, Unavailable
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Integration, Job
from tokenyard.finetune.reconciling.reconciler import AFTER_FAILURE_MS
from tokenyard.finetune.results import wandb_run
from tokenyard.finetune.states import JobState
from tokenyard.finetune.views import IntegrationView, JobView, WandbView
from tokenyard.storage.blobs import BlobStore


async def lines_of(stack: FinetuneStack, job: Job) -> list[dict[str, str]]:
    [file] = JobView.of(job).result_files
    stored = await stack.files.get(job.organization, FileId(file))
    content = await stack.blobs.read(stack.files.path(job.organization, stored.id))
    assert (stored.purpose, stored.filename, stored.bytes) == ("fine-tune-results", "step_metrics.csv", len(content))
    return list(csv.DictReader(io.StringIO(content.decode())))


def scalars_of(events: bytes) -> Iterator[tuple[int, str, float]]:
    """Read TensorBoard's file: records of a length, its checksum, an event, and that one's checksum."""
    stream = io.BytesIO(events)
    while length := stream.read(8):
        stream.read(4)
        event = Event.FromString(stream.read(*struct.unpack("<Q", length)))
        stream.read(4)
        for value in event.summary.value:
            yield event.step, value.tag, value.simple_value


async def steps_that_may_fail(stack: FinetuneStack) -> None:
    for _ in range(3):
        with contextlib.suppress(BaseExceptionGroup):
            await stack.worker[1].step()
        stack.clock.advance(AFTER_FAILURE_MS / 1000 + 1)


async def test_a_job_that_succeeded_shows_each_step(stack: FinetuneStack) -> None:
    job = await stack.create()
    used = await stack.stored_bytes(job.organization)
    await stack.rounds(2)
    assert JobView.of(await stack.job(job.id)).result_files == []
    await stack.cluster.tell(f"{job.id}-1", "Step 1", "Step 2")
    await stack.cluster.succeed(f"{job.id}-1", tokens=10)
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert ended.status == "succeeded"
    first, second = await lines_of(stack, ended)
    assert list(first)[:5] == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert (first["step"], first["train_loss"], first["valid_loss"]) == ("1", "1.0", "")
    assert (second["step"], second["train_loss"]) == ("2", "0.5")
    [file] = JobView.of(ended).result_files
    assert await stack.stored_bytes(job.organization) > used, "it counts as stored"
    with pytest.raises(NotFound):
        await stack.files.get(principal("rival").organization, FileId(file))
    await stack.files.begin_delete(job.organization, FileId(file))  # no job needs it any more


async def test_a_step_that_two_attempts_made_is_shown_once(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1", "Step 2")
    await stack.rounds(1)
    stack.cluster.forget(f"{job.id}-1")
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-2", "Step 1 again", "Step 2 again", "Step 3")
    await stack.cluster.succeed(f"{job.id}-2", tokens=10)
    await stack.rounds(3)
    assert [line["step"] for line in await lines_of(stack, await stack.job(job.id))] == ["1", "2", "3"]


async def test_a_cancelled_job_shows_the_steps_that_it_made(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1")
    await stack.jobs.cancel(job.organization, job.id)
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert ended.status == "cancelled"
    assert len(await lines_of(stack, ended)) == 1


async def test_a_job_without_steps_has_none(stack: FinetuneStack) -> None:
    job = await stack.create()
    await stack.jobs.cancel(job.organization, job.id)
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert (ended.status, JobView.of(ended).result_files) == ("cancelled", [])


async def test_a_death_before_the_end_is_saved_leaves_one_file(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1")
    await stack.cluster.fail(f"{job.id}-1", "diverged", "The loss is no number.")
    with monkeypatch.context() as broken:

        async def dies(*_where: object, **_file: object) -> None:
            raise Unavailable("the process is gone")

        broken.setattr(stack.files, "enter", dies)
        await steps_that_may_fail(stack)
    waiting = await stack.job(job.id)
    assert (waiting.state, waiting.result_file) == (JobState.SETTLING, None), "neither is there without the other"
    assert await stack.charges() == []
    await stack.rounds(8)
    ended = await stack.job(job.id)
    assert ended.status == "failed"
    assert len(await lines_of(stack, ended)) == 1
    assert await stack.files.page(
        job.organization, purpose="fine-tune-results", limit=9, after=None, newest_first=True
    ) == [await stack.files.get(job.organization, FileId(JobView.of(ended).result_files[0]))]


async def test_a_job_does_not_end_while_the_store_is_away(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1")
    await stack.jobs.cancel(job.organization, job.id)
    with monkeypatch.context() as broken:

        async def away(_self: BlobStore, _path: str, _data: bytes) -> None:
            raise Unavailable("the store is away")

        broken.setattr(BlobStore, "write", away)
        await steps_that_may_fail(stack)
    assert (await stack.job(job.id)).state is JobState.SETTLING
    await stack.rounds(3)
    assert len(await lines_of(stack, await stack.job(job.id))) == 1


WANDB = {"type": "wandb", "wandb": {"project": "bots", "tags": ["shop"]}}


async def test_a_run_of_wandb_is_left_where_it_was_asked_for(stack: FinetuneStack) -> None:
    job = await stack.create(integrations=[WANDB, {"type": "tensorboard"}])
    shown = JobView.of(job).integrations
    assert [one.type for one in shown] == [Integration.WANDB, Integration.TENSORBOARD]
    assert shown[0].wandb == WandbView(project="bots", name=None, entity=None, tags=["shop"])
    check_openai_schema(shown[0].model_dump(mode="json"), "FineTuningIntegration")
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1", "Step 2")
    await stack.cluster.succeed(f"{job.id}-1", tokens=10)
    await stack.rounds(3)
    _, _, file = JobView.of(await stack.job(job.id)).result_files
    stored = await stack.files.get(job.organization, FileId(file))
    assert stored.filename == f"run-{job.id}.wandb"
    run = await stack.blobs.read(stack.files.path(job.organization, stored.id))
    assert run.startswith(b":W&B")
    assert stored.bytes == len(run)


async def test_a_run_of_wandb_that_does_not_come_about_changes_nothing_else(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_run, "TIME_LIMIT_S", 0.0)
    job = await stack.create(integrations=[WANDB])
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1")
    await stack.cluster.succeed(f"{job.id}-1", tokens=10)
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert (ended.status, ended.wandb_file) == ("succeeded", None)
    assert len(JobView.of(ended).result_files) == 1
    assert "A run of Weights & Biases was not written within 0 s." in await stack.messages(ended)


async def test_tensorboard_gets_each_step_where_it_was_asked_for(stack: FinetuneStack) -> None:
    job = await stack.create(integrations=[{"type": "tensorboard"}])
    assert JobView.of(job).integrations == [IntegrationView(type=Integration.TENSORBOARD)]
    await stack.rounds(2)
    await stack.cluster.tell(f"{job.id}-1", "Step 1", "Step 2")
    await stack.cluster.succeed(f"{job.id}-1", tokens=10)
    await stack.rounds(3)
    _, file = JobView.of(await stack.job(job.id)).result_files
    stored = await stack.files.get(job.organization, FileId(file))
    assert stored.filename == f"events.out.tfevents.{job.created_at_ms // 1000}.{job.id}"
    events = await stack.blobs.read(stack.files.path(job.organization, stored.id))
    assert [(step, value) for step, name, value in scalars_of(events) if name == "train/loss"] == [(1, 1.0), (2, 0.5)]
