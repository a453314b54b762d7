"""A cancel races the publishing of the model: what is cancelled never goes live, whatever a worker is about to do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from support.fakes.finetune_ports import SMALL_MODEL, FixedModels, FixedPrices
from support.finetune.stack import FinetuneStack
from tokenyard.catalog.adapters import AdapterCatalog
from tokenyard.catalog.changes import TOPIC, CatalogCarrier
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import ModelNotFound
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop


class ServedModels(FixedModels):
    """The one base model, as the catalog asks for it."""

    def all(self) -> Sequence[Any]:
        return [SMALL_MODEL]


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
    bases: Any = ServedModels()
    store = CatalogStore(stack.database, stack.clock)
    models = ModelCatalog(bases, store, FixedPrices(), stack.clock, now=stack.clock)
    outbox = TransactionalOutbox(stack.database, redis, stack.clock, {TOPIC: CatalogCarrier(redis).carry})
    adapters = AdapterCatalog(bases, store, models, CatalogPush(models, outbox))
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=500)
    return Publication(stack, models, adapters, CatalogOperatorStore(stack.database, stack.clock), job)


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
    assert await publication.states() == ["retired"]


@pytest.mark.parametrize(
    ("paused_at", "left"), [("write_stream", []), ("load", ["retired"])], ids=["copying", "checking"]
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
