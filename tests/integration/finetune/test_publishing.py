"""Publishing: what is cancelled meanwhile never goes live, nor does what there is no room for."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from support.finetune.adapter_files import adapter_weights
from support.finetune.served_catalog import ServedCatalog
from support.finetune.stack import FinetuneStack, principal
from tokenyard.catalog.adapters.adapter_catalog import AdapterCatalog
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import ModelNotFound, QuotaExceeded
from tokenyard.finetune.job import Job
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.states import JobState
from tokenyard.web.loops import Loop


@dataclass
class Publication:
    """A trained job, whose model is to go live in the real catalog."""

    stack: FinetuneStack
    models: ModelCatalog
    adapters: AdapterCatalog
    operator: CatalogOperatorStore
    job: Job

    def worker(self) -> Sequence[Loop]:
        return self.stack.new_worker(adapters=self.adapters)

    async def states(self) -> list[str]:
        found = await self.operator.adapters(organization=self.job.organization, state=None, after=None, limit=10)
        return [one.state for one in found]

    async def check_never_live(self) -> None:
        end = await self.stack.job(self.job.id)
        assert end.state is JobState.CANCELLED
        assert end.model_name is not None
        with pytest.raises(ModelNotFound):
            await self.models.resolve(end.organization, str(end.model_name))
        assert [event.job for event in await self.stack.charges()] == [self.job.id]


@pytest.fixture
async def publication(stack: FinetuneStack, redis: Redis) -> Publication:
    catalog = ServedCatalog.over(stack, redis)
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=500)
    return Publication(stack, catalog.models, catalog.adapters, catalog.operator, job)


def once(owner: Any, name: str, meanwhile: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen when `owner` is asked for `name` the next time, before it does it."""
    found = getattr(owner, name)

    async def call(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, name, found)
        await meanwhile()
        return await found(*arguments, **named)

    monkeypatch.setattr(owner, name, call)


async def test_a_model_goes_live_in_the_catalog(publication: Publication) -> None:
    for _ in range(3):
        await publication.stack.round(publication.worker())
    end = await publication.stack.job(publication.job.id)
    assert isinstance(end.model_name, FineTunedName)
    assert (await publication.models.resolve(end.organization, str(end.model_name))).adapter is not None
    assert await publication.states() == ["live"]


async def test_a_cancel_during_the_canary_comes_before_the_promotion(
    publication: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, lives = publication.stack, []

    async def cancel() -> None:
        await stack.jobs.cancel(publication.job.organization, publication.job.id)

    async def note() -> None:
        lives.append("promoted")

    once(stack.replicas, "canary", cancel, monkeypatch)
    once(publication.models, "organization_changed", note, monkeypatch)
    worker = publication.worker()
    await stack.round(worker)
    assert await publication.states() == ["checking"]
    assert lives == []
    for _ in range(3):
        await stack.round(worker)
    await publication.check_never_live()
    assert await publication.states() == ["draining"]


@pytest.mark.parametrize(
    ("paused_at", "left"), [("write_stream", ["draining"]), ("load", ["draining"])], ids=["copying", "checking"]
)
async def test_a_worker_that_comes_back_after_its_job_was_cancelled_and_ended(
    publication: Publication, monkeypatch: pytest.MonkeyPatch, paused_at: str, left: list[str]
) -> None:
    stack = publication.stack

    async def the_job_ends() -> None:
        stack.outlive_leases()
        await stack.jobs.cancel(publication.job.organization, publication.job.id)
        other = publication.worker()
        for _ in range(3):
            await stack.round(other)
        assert (await stack.job(publication.job.id)).state is JobState.CANCELLED

    once(stack.blobs if paused_at == "write_stream" else stack.replicas, paused_at, the_job_ends, monkeypatch)
    await stack.round(publication.worker())
    await publication.check_never_live()
    assert await publication.states() == left


async def test_a_model_that_there_is_no_room_for_never_goes_live(publication: Publication, redis: Redis) -> None:
    stack, owner = publication.stack, publication.job.organization
    small = stack.quota_of(await stack.stored_bytes(owner) + 1_000)
    adapters = ServedCatalog.over(stack, redis, small).adapters
    for _ in range(3):
        await stack.round(stack.new_worker(adapters=adapters))
    end = await stack.job(publication.job.id)
    assert (end.state, end.error and end.error.code) == (JobState.FAILED, "storage_quota_exceeded")
    assert await publication.states() == []
    assert [event.trained_tokens for event in await stack.charges()] == [0], "nobody pays for what cannot be called"


async def test_a_live_model_counts_once_and_makes_room_as_it_ends(publication: Publication) -> None:
    stack, owner = publication.stack, publication.job.organization
    before = await stack.stored_bytes(owner)
    for _ in range(3):
        await stack.round(publication.worker())
    size = await stack.stored_bytes(owner) - before
    end = await stack.job(publication.job.id)
    folder = f"adapters/{owner}/{end.adapter}"
    held = [await stack.blobs.size(f"{folder}/{name}") for name in await stack.blobs.names(folder)]
    assert size == sum(held) - await stack.blobs.size(f"{folder}/manifest.json") > 0
    full = stack.new_creation(quota=stack.quota_of(before + size))
    file = publication.job.training_file
    asked = JobRequest.model_validate({"model": "small-model", "training_file": file})
    with pytest.raises(QuotaExceeded) as refused:
        await full.create(principal(), asked)
    assert (refused.value.code, refused.value.param) == ("storage_quota_exceeded", "training_file")
    assert end.adapter is not None
    await publication.adapters.retire(owner, end.adapter, actor=publication.job.key, reason="deleted by its owner")
    assert await stack.stored_bytes(owner) == before
    await full.create(principal(), asked)


async def test_an_adapter_that_is_brought_must_find_room(stack: FinetuneStack) -> None:
    job = await stack.bring()
    for _ in range(4):
        await stack.round()
    used = await stack.stored_bytes(job.organization)
    weights = len(adapter_weights())
    for room, fits in ((weights - 1, False), (weights, True)):
        # The file is there, and taken in it lies there a second time.
        stack.creation = stack.new_creation(quota=stack.quota_of(used + weights + room))
        if fits:
            await stack.bring()
        else:
            with pytest.raises(QuotaExceeded, match="limit of"):
                await stack.bring()
            used += weights
