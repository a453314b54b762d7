"""Model files that are published while processes run: in force in each of them within moments, or nowhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from support.gateway_stack import until
from tokenyard.catalog.base_models import model_files
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.base_models.model_files import TOPIC, ModelFiles, model_file_carrier
from tokenyard.catalog.base_models.operator_store import ModelFileOperatorStore
from tokenyard.catalog.tables import ModelFilesRow
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.models import InvalidModelSpec, LoraSpec, ModelSpec
from tokenyard.settings import shipped
from tokenyard.storage.change_feed import ChangeFeed
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.store import record

FILE = (shipped("deployments/models") / "smollm2-135m-instruct.yaml").read_text()
OWN = read_model_spec(FILE.encode())
OPERATOR = ApiKeyId("key_operator")


def changed(**changes: Any) -> str:
    """Return the shipped model's file with some of it changed."""
    return write_model_spec(msgspec.structs.replace(OWN, **changes)).decode()


class Publishing:
    """An operator, and processes that follow."""

    def __init__(self, database: Database, redis: Redis, folder: Path) -> None:
        self.database, self.redis, self.folder = database, redis, folder
        self.outbox = TransactionalOutbox(database, redis, SystemClock(), {TOPIC: model_file_carrier(redis)})
        self.store = ModelFileOperatorStore(database, SystemClock(), record, folder, self._check)
        self.unservable: set[str] = set()

    def _check(self, models: Any) -> None:
        for model in models:
            if model.id in self.unservable:
                raise InvalidModelSpec(f"model {model.id}: there is no key")

    async def publish(self, *files: str) -> ModelFilesRow:
        row, messages = await self.store.publish(files, actor=OPERATOR)
        await self.outbox.carry(messages)
        return row

    @asynccontextmanager
    async def process(self, *own: ModelSpec) -> AsyncIterator[BaseModels]:
        """Run what a gateway or worker runs; `own` are what its own files say."""
        bases = BaseModels([], self.folder)
        async with (
            ModelFiles(self.database, bases, lambda: own or (OWN,)) as files,
            ChangeFeed(self.redis, files.listeners()),
        ):
            yield bases


@pytest.fixture
def publishing(database: Database, redis: Redis, tmp_path: Path) -> Publishing:
    return Publishing(database, redis, tmp_path)


def context(bases: BaseModels, model: str = OWN.id) -> int:
    found = bases.get(model)
    return 0 if found is None else found.context_length


async def test_changed_new_and_removed_models_are_in_force_in_every_process(publishing: Publishing) -> None:
    async with publishing.process() as gateway, publishing.process() as worker:
        assert (context(gateway), gateway.rules(OWN.id).max_rank) == (8192, 16)
        small = changed(context_length=4096, lora=LoraSpec(max_lora_rank=8))
        async with asyncio.timeout(2):
            await publishing.publish(changed(id="another"), small)
            await until(lambda: context(gateway) == context(worker) == 4096)
        assert [base.id for base in gateway.all()] == ["another", OWN.id]
        assert (gateway.rules(OWN.id).max_rank, worker.rules("another").max_rank) == (8, 16)
        async with asyncio.timeout(2):
            await publishing.publish(_elsewhere(), small)
            await until(lambda: context(gateway, "sold") == context(worker, "sold") > 0)
        assert gateway.get("another") is None
    async with publishing.process() as late:
        assert [base.id for base in late.all()] == ["sold", OWN.id], "what starts later has them, too"


def _elsewhere() -> str:
    return """
version: 2
id: sold
source: {kind: server, url: "https://models.example/v1", model: theirs}
context_length: 1000
default_max_tokens: 100
template_tokens: 1
template_tokens_per_message: 1
created: 1
"""


async def test_a_bad_set_changes_nothing_and_is_told(publishing: Publishing) -> None:
    before = await publishing.publish(FILE)
    bad = (
        ("context_length: many", "not a model description"),
        (FILE.replace("version: 2", "version: 1"), "version 1"),
        (changed(replicas=0), "replicas"),
    )
    async with publishing.process() as gateway:
        for file, complaint in bad:
            for files in ((file,), (changed(context_length=4096, id="good"), file)):
                with pytest.raises(InvalidModelSpec, match=complaint):
                    await publishing.publish(*files)
        with pytest.raises(InvalidModelSpec, match="same id"):
            await publishing.publish(FILE, changed(context_length=4096))
        publishing.unservable.add("sold")
        with pytest.raises(InvalidModelSpec, match="no key"):
            await publishing.publish(FILE, _elsewhere())
        current = await publishing.store.current()
        assert current is not None
        assert current.revision == before.revision
        assert [base.id for base in gateway.all()] == [OWN.id]


async def test_the_same_set_again_changes_nothing_and_each_change_is_in_the_audit_log(publishing: Publishing) -> None:
    first = await publishing.publish(FILE)
    assert (await publishing.publish(FILE)).revision == first.revision
    await publishing.publish(changed(context_length=4096))
    log = await TenancyOperatorStore(publishing.database, SystemClock()).audit_log(
        organization=None, before=None, limit=10
    )
    assert [(entry.type, entry.actor.api_key.id) for entry in log] == [("model_files.published", OPERATOR)] * 2
    assert log[0].before == log[1].details
    assert log[0].details != log[0].before


async def test_who_was_out_of_reach_catches_up(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "RELOAD_S", 0.1)
    bases = BaseModels([], publishing.folder)
    async with ModelFiles(publishing.database, bases, lambda: [OWN]):  # which no feed reaches
        await publishing.store.publish([changed(context_length=4096)], actor=OPERATOR)
        await until(lambda: context(bases) == 4096)


async def test_a_set_that_this_version_cannot_read_leaves_the_last_one_in_force(publishing: Publishing) -> None:
    await publishing.publish(FILE)
    async with publishing.process() as gateway:
        async with publishing.database.transaction() as session:
            later = '{"later": "version: 3"}'
            session.add(ModelFilesRow(files=later, sha256="x", published_by="later", published_at_ms=1))
        await model_file_carrier(publishing.redis)(["2"])
        await publishing.publish(changed(context_length=2048))
        await until(lambda: context(gateway) == 2048)
