"""A tenant's own adapter, as PEFT wrote it, is live on a real replica; a misfit never reaches the engine."""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.finetune.ports import SMALL_MODEL, FixedModels
from support.finetune.stack import FinetuneStack
from support.replica_caller import MODEL, ReplicaCaller, chat, claims
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.replica import Replica
from tokenyard.finetune.job import Job
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.shapes import base_shapes

WriteAdapter = Callable[[Path, int], None]


class OneReplica:
    """The list of replicas, as a worker reads it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def of(self, model: str) -> Sequence[Replica]:
        return [self._replica]

    async def call_for(self, models: Collection[str]) -> None:
        pass


@pytest.fixture
async def stack(caller: ReplicaCaller, tmp_path: Path, empty_sqlite: Path) -> AsyncIterator[FinetuneStack]:
    """Jobs whose blobs are those of the replica."""
    database = Database(f"sqlite+aiosqlite:///{shutil.copy(empty_sqlite, tmp_path / 'test.db')}")
    yield FinetuneStack(database, caller.cluster.blobs.parent)
    await database.close()


@pytest.fixture
def own(write_adapter: WriteAdapter, tmp_path: Path) -> Path:
    """A folder as PEFT leaves it."""
    write_adapter(tmp_path / "own", 71)
    return tmp_path / "own"


def worker(stack: FinetuneStack, caller: ReplicaCaller, base: Path, *, knows_shapes: bool = True) -> Sequence[Loop]:
    models = FixedModels(
        msgspec.structs.replace(SMALL_MODEL, id=MODEL, max_lora_rank=8, content_hash=content_hash(base))
    )
    models.base_shapes = base_shapes(base) if knows_shapes else None
    stack.creation = stack.new_creation(models=models)
    return stack.new_worker(models=models, replicas=OneReplica(caller.replica), canary=caller.control)


async def brought(stack: FinetuneStack, worker: Sequence[Loop], folder: Path) -> Job:
    """Upload what PEFT wrote into a folder, and let a worker end the job."""
    weights = (folder / "adapter_model.safetensors").read_bytes()
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    job = await stack.bring(model=MODEL, weights=weights, **config)
    for _ in range(3):
        await stack.round(worker)
    return await stack.job(job.id)


async def test_it_answers_under_its_name(
    stack: FinetuneStack, caller: ReplicaCaller, base_model: Path, own: Path
) -> None:
    job = await brought(stack, worker(stack, caller, base_model), own)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.adapter is not None
    path, digest = stack.catalog.paths[job.adapter]
    ref = AdapterRef(job.adapter, str(job.model_name), path, digest)
    answer = await caller.ask({**chat("Hello"), "model": ref.name}, claims(ref))
    assert answer["model"] == str(job.model_name)
    assert answer["choices"] != (await caller.ask(chat("Hello"), claims()))["choices"]


@pytest.mark.parametrize("known", [True, False], ids=["known to the worker", "known to the replica alone"])
async def test_a_misfit_fails_and_the_replica_goes_on(
    stack: FinetuneStack, caller: ReplicaCaller, base_model: Path, own: Path, known: bool
) -> None:
    weights = own / "adapter_model.safetensors"
    wider = {
        name: torch.nn.functional.pad(tensor, (0, 8)) if "lora_A" in name else tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(wider, weights)
    job = await brought(stack, worker(stack, caller, base_model, knows_shapes=known), own)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == ("shape_mismatch" if known else "model_check_failed")
    assert "shape" in job.error.message
    assert str(own.parent) not in job.error.message
    await caller.ask(chat("Hello"), claims())
