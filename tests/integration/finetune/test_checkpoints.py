"""Checkpoints that can be called: from their epoch's end on, as many as were asked for, until somebody ends them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from support.finetune.adapter_files import adapter_weights, lora_tensors, safetensors
from support.finetune.ports import FixedModels
from support.finetune.served_catalog import ServedCatalog
from support.finetune.stack import FOLDERS_KEPT_MS, FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, ModelNotFound
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.training import attempts_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.starting import StartingPoints
from tokenyard.finetune.views import CheckpointView
from tokenyard.web.loops import Loop

STEPS = 30
KEY = ApiKeyId("key_acme")


@dataclass
class Training:
    """A job that trains for three epochs of ten steps, a worker, and the catalog that it publishes into."""

    stack: FinetuneStack
    catalog: ServedCatalog
    worker: Sequence[Loop]
    job: Job
    told: int = 1

    @property
    def run(self) -> str:
        return f"{self.job.id}-1"

    async def rounds(self, count: int = 3) -> None:
        for _ in range(count):
            await self.stack.round(self.worker)

    async def epoch(self, step: int, weights: bytes | None = None) -> None:
        """End an epoch, and let the worker hear of it."""
        self.told += 1
        await self.stack.cluster.checkpoint(self.run, step, seq=self.told, weights=weights)
        await self.rounds()

    async def succeed(self) -> None:
        await self.stack.cluster.succeed(self.run, tokens=500)
        await self.rounds()

    async def succeed_before_checkpoint(self, step: int) -> None:
        """Let the model go live while the checkpoint of an earlier step still waits for a replica."""
        self.stack.replicas.present = False
        await self.epoch(step)
        self.stack.replicas.present = True
        await self.stack.cluster.succeed(self.run, tokens=500)
        [reconcile] = [loop for loop in self.worker if loop.name == "reconcile training"]
        for _ in range(3):
            await self.stack.round([reconcile])

    async def name(self, step: int) -> str:
        name = (await self.stack.job(self.job.id)).model_name
        assert name is not None
        return str(name.at_step(step))

    async def callable_steps(self) -> list[int]:
        """Return the steps whose checkpoints can be called, as the API tells and as requests find."""
        job = await self.stack.job(self.job.id)
        rows = await self.stack.jobs.checkpoints(job.organization, job.id, limit=10, after=None)
        names = await self.catalog.models.fine_tunes(job.organization)
        views = [CheckpointView.of(row, job, names) for row in rows]
        for view in views:
            if view.callable:
                await self.catalog.models.resolve(job.organization, view.fine_tuned_model_checkpoint)
            else:
                with pytest.raises(ModelNotFound):
                    await self.catalog.models.resolve(job.organization, view.fine_tuned_model_checkpoint)
        return sorted(view.step_number for view in views if view.callable)

    async def states(self) -> dict[str, str]:
        """Return the state of every adapter that the job made, by the end of its name."""
        found = await self.catalog.operator.adapters(
            organization=self.job.organization, state=None, after=None, limit=20
        )
        return {one.model.rpartition(":")[2] if "ckpt" in one.model else "model": one.state for one in found}


async def started(stack: FinetuneStack, redis: Redis, **asked: Any) -> Training:
    catalog = ServedCatalog.over(stack, redis)
    job = await stack.create(**asked)
    training = Training(stack, catalog, stack.new_worker(adapters=catalog.adapters), job)
    await training.rounds(2)
    await stack.cluster.tell(training.run, "Step 1", total=STEPS)
    return training


@pytest.fixture
async def training(stack: FinetuneStack, redis: Redis) -> Training:
    return await started(stack, redis, callable_checkpoints=2)


async def test_a_checkpoint_is_called_while_its_job_trains_at_the_price_of_fine_tunes(training: Training) -> None:
    await training.epoch(10)
    assert (await training.stack.job(training.job.id)).state is JobState.RUNNING
    name = await training.name(10)
    found = await training.catalog.models.resolve(training.job.organization, name)
    assert found.adapter is not None
    assert (found.name, found.adapter.name) == (name, name), "it answers, and is charged, under its own name"
    assert found.price.id == "2026-01-01/small-model/fine-tuned"
    assert name in training.stack.replicas.loaded, "no checkpoint is live that no replica has proven"
    assert "The checkpoint of step 10 can be called" in await training.stack.messages(training.job)
    assert [one.id for one in await training.catalog.models.list_models(training.job.organization)][1:] == [name]


async def test_another_tenant_s_checkpoint_does_not_exist(training: Training) -> None:
    """I7."""
    await training.epoch(10)
    rival, name = principal("rival").organization, await training.name(10)
    with pytest.raises(ModelNotFound):
        await training.catalog.models.resolve(rival, name)
    assert await training.catalog.models.fine_tunes(rival) == {}


async def test_the_last_ones_can_be_called_and_that_of_the_last_step_is_the_model(training: Training) -> None:
    await training.epoch(10)
    await training.epoch(20)
    assert await training.callable_steps() == [10, 20]
    await training.epoch(STEPS)
    assert await training.callable_steps() == [10, 20], "earlier ones stay until it can be called"
    await training.succeed()
    assert await training.callable_steps() == [20, STEPS]
    assert await training.states() == {"ckpt-step-10": "draining", "ckpt-step-20": "live", "model": "live"}
    ended = await training.stack.job(training.job.id)
    last = await training.catalog.models.resolve(training.job.organization, await training.name(STEPS))
    assert last.name == str(ended.model_name)


async def test_many_that_are_whole_at_once_leave_no_more_than_were_asked_for(training: Training) -> None:
    for step in (10, 15, 20, 25):
        training.told += 1
        await training.stack.cluster.checkpoint(training.run, step, seq=training.told)
    await training.rounds()
    assert await training.callable_steps() == [20, 25]
    assert set(await training.states()) == {"ckpt-step-20", "ckpt-step-25"}, "the others were never hosted"


async def test_one_that_was_refused_does_not_end_those_before_it(training: Training) -> None:
    await training.epoch(10)
    await training.epoch(20)
    zeros = {name: (shape, bytes(len(values))) for name, (shape, values) in lora_tensors(rank=8).items()}
    await training.epoch(25, safetensors(zeros))
    assert await training.callable_steps() == [10, 20]
    assert any(
        "The checkpoint of step 25 cannot be called" in one for one in await training.stack.messages(training.job)
    )
    await training.epoch(28)
    assert await training.callable_steps() == [20, 28]


async def test_without_a_word_of_it_no_checkpoint_is_hosted_but_the_model_answers_for_its_own(
    stack: FinetuneStack, redis: Redis
) -> None:
    training = await started(stack, redis)
    await training.epoch(10)
    await training.epoch(STEPS)
    assert await training.callable_steps() == []
    await training.succeed()
    assert await training.callable_steps() == [STEPS]
    assert await training.states() == {"model": "live"}


async def test_a_failed_job_keeps_its_checkpoints_and_pays_its_steps(training: Training) -> None:
    await training.epoch(10)
    await training.stack.cluster.train(training.run, 12, tokens=120)
    await training.stack.cluster.fail(training.run, "diverged", "The loss is not a number.")
    await training.rounds()
    assert (await training.stack.job(training.job.id)).state is JobState.FAILED
    assert await training.callable_steps() == [10]
    assert [event.trained_tokens for event in await training.stack.charges()] == [120]
    assert (
        "Its checkpoints stay, so 120 trained tokens are charged" in (await training.stack.messages(training.job))[-1]
    )


async def test_a_model_that_its_gate_refuses_leaves_its_checkpoints_and_is_paid_for(training: Training) -> None:
    await training.epoch(10)
    training.stack.replicas.shift = 0.0
    await training.succeed()
    assert (await training.stack.job(training.job.id)).state is JobState.FAILED
    assert await training.callable_steps() == [10]
    assert [event.trained_tokens for event in await training.stack.charges()] == [500]


async def test_a_cancelled_job_keeps_its_checkpoints(training: Training) -> None:
    await training.epoch(10)
    await training.stack.jobs.cancel(training.job.organization, training.job.id)
    await training.rounds()
    assert (await training.stack.job(training.job.id)).state is JobState.CANCELLED
    assert await training.callable_steps() == [10]
    await training.catalog.adapters.delete(training.job.organization, await training.name(10), actor=KEY)
    assert await training.callable_steps() == []


async def test_a_deleted_model_takes_its_checkpoints_with_it(training: Training) -> None:
    owner = training.job.organization
    for step in (10, 20):
        await training.epoch(step)
    await training.succeed()
    model = str((await training.stack.job(training.job.id)).model_name)
    with pytest.raises(InvalidRequest, match="is the model"):
        await training.catalog.adapters.delete(owner, await training.name(STEPS), actor=KEY)
    await training.catalog.adapters.delete(owner, await training.name(10), actor=KEY)
    assert await training.callable_steps() == [20]
    await training.catalog.adapters.delete(owner, model, actor=KEY)
    assert await training.callable_steps() == []
    assert set((await training.states()).values()) == {"draining"}
    assert await training.catalog.models.fine_tunes(owner) == {}


async def test_a_checkpoint_does_not_outlive_a_model_that_was_deleted_meanwhile(training: Training) -> None:
    await training.succeed_before_checkpoint(10)
    model = str((await training.stack.job(training.job.id)).model_name)
    await training.catalog.adapters.delete(training.job.organization, model, actor=KEY)
    await training.rounds()
    assert await training.callable_steps() == []
    assert "live" not in (await training.states()).values()


async def test_models_are_pinned_before_checkpoints_however_late_these_went_live(training: Training) -> None:
    await training.succeed_before_checkpoint(10)
    await training.rounds()
    assert await training.callable_steps() == [10]
    model = str((await training.stack.job(training.job.id)).model_name)
    pinned = await training.catalog.operator.to_be_pinned({training.job.organization: 2})
    assert pinned == {"small-model": [model, await training.name(10)]}


async def test_there_must_be_room_for_a_checkpoint(training: Training, redis: Redis) -> None:
    stack, owner = training.stack, training.job.organization
    before = await stack.stored_bytes(owner)
    await training.epoch(10)
    size = await stack.stored_bytes(owner) - before
    assert size >= len(adapter_weights(rank=8)), "what is hosted counts as stored"
    full = ServedCatalog.over(stack, redis, stack.quota_of(before + size + 10))
    training.worker = stack.new_worker(adapters=full.adapters)
    await training.epoch(20)
    assert await training.callable_steps() == [10]
    assert any("step 20 cannot be called" in one for one in await stack.messages(training.job))


async def test_training_goes_on_from_a_checkpoint(training: Training) -> None:
    stack = training.stack
    await training.epoch(10)
    name = await training.name(10)
    stack.creation = stack.new_creation(starts=StartingPoints(training.catalog.models, stack.blobs, FixedModels()))
    second = await stack.create(model=name)
    assert second.starts_from is not None
    assert (second.model, second.starts_from.name) == ("small-model", name)
    await stack.jobs.cancel(training.job.organization, training.job.id)  # the one place of training is free then
    await training.rounds(4)
    spec = stack.cluster.specs[f"{second.id}-1"]
    assert spec.start_url is not None
    copied = spec.start_url.removeprefix(f"{stack.blobs.url}/")
    original = f"{second.starts_from.path}/adapter_model.safetensors"
    assert await stack.blobs.read(f"{copied}/adapter/adapter_model.safetensors") == await stack.blobs.read(original)
    with pytest.raises(ModelNotFound):
        await stack.create(principal("rival"), model=name)


async def test_a_checkpoint_that_waits_keeps_its_files_and_is_given_up_in_the_end(training: Training) -> None:
    stack, folder = training.stack, attempts_folder(training.job.organization, training.job.id)
    stack.replicas.present = False
    await training.epoch(10)
    await stack.jobs.cancel(training.job.organization, training.job.id)
    await training.rounds()
    assert stack.replicas.called_for == {"small-model"}
    checkpoints = [loop for loop in training.worker if loop.name == "publish checkpoints"]
    folders = [loop for loop in training.worker if loop.name == "delete job folders"]
    stack.clock.advance(FOLDERS_KEPT_MS / 1000 + 1)
    await stack.round(folders)
    assert await stack.blobs.names(folder) != []
    await stack.round(checkpoints)
    assert await training.states() == {"ckpt-step-10": "draining"}
    await stack.round(folders)
    assert await stack.blobs.names(folder) == []
