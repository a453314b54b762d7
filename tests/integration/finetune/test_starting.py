"""Training that begins with the weights of a fine-tuned model: whose it may be, and how long it must stand."""

from pathlib import Path

import msgspec
import pytest

from support.finetune.ports import SMALL_MODEL, FixedModels
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest, ModelNotFound, PermissionDenied
from tokenyard.core.principal import AllowedModels
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_FOLDER, ADAPTER_WEIGHTS, MANIFEST_FILE
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.starting import StartingPoints
from tokenyard.finetune.views import JobView


async def tuned(stack: FinetuneStack) -> Job:
    """Return a job that has made a model."""
    job = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=5)
    await stack.rounds(3)
    done = await stack.job(job.id)
    assert done.state is JobState.SUCCEEDED
    return done


def folder_of(stack: FinetuneStack, job: Job) -> Path:
    assert job.adapter is not None
    return stack.folder / "blobs" / stack.catalog.paths[job.adapter][0]


async def test_it_goes_on_from_the_model_and_makes_a_new_one_of_the_same_base(stack: FinetuneStack) -> None:
    first = await tuned(stack)
    second = await stack.create(model=str(first.model_name), suffix="further")
    assert JobView.of(second).model == str(first.model_name)
    assert (second.model, second.price) == (first.model, first.price)
    await stack.rounds(2)
    spec = stack.cluster.specs[f"{second.id}-1"]
    assert (spec.lora.rank, spec.lora.alpha, spec.lora.target_modules) == (8, 8, ("q_proj",))
    assert spec.start_url is not None
    copied = Path(spec.start_url.removeprefix("file://")) / ADAPTER_FOLDER
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, MANIFEST_FILE):
        assert (copied / name).read_bytes() == (folder_of(stack, first) / name).read_bytes()
    await stack.cluster.succeed(f"{second.id}-1", tokens=5)
    await stack.rounds(3)
    done = await stack.job(second.id)
    assert done.state is JobState.SUCCEEDED
    assert str(done.model_name).startswith("ft:small-model:acme:further:")
    assert [charge.base_model for charge in await stack.charges()] == ["small-model", "small-model"]


async def test_anothers_model_is_as_if_it_were_not_there(stack: FinetuneStack) -> None:
    name = str((await tuned(stack)).model_name)
    said = []
    for model in (name, name[:-1] + "0", "ft:small-model:acme:sky:none", "ft:"):
        with pytest.raises(ModelNotFound) as refused:
            await stack.create(principal("rival"), model=model)
        said.append(refused.value.message.replace(model, "…"))
    assert len(set(said)) == 1


async def test_a_retired_model_starts_nothing(stack: FinetuneStack) -> None:
    first = await tuned(stack)
    assert first.adapter is not None
    await stack.catalog.fail(first.organization, first.adapter, "deleted by its owner")
    with pytest.raises(ModelNotFound):
        await stack.create(model=str(first.model_name))


async def test_a_key_trains_no_model_further_that_it_may_not_use(stack: FinetuneStack) -> None:
    name = str((await tuned(stack)).model_name)
    bound = msgspec.structs.replace(principal(), models=(AllowedModels("key", "key_acme", ("small-model",)),))
    with pytest.raises(PermissionDenied):
        await stack.create(bound, model=name)
    allowed = msgspec.structs.replace(principal(), models=(AllowedModels("key", "key_acme", ("ft:small-model:*",)),))
    assert (await stack.create(allowed, model=name)).starts_from is not None


async def test_once_the_job_is_queued_the_model_may_go(stack: FinetuneStack) -> None:
    first = await tuned(stack)
    second = await stack.create(model=str(first.model_name))
    await stack.round()
    for file in folder_of(stack, first).iterdir():
        file.unlink()
    await stack.rounds(2)
    assert (await stack.job(second.id)).state is JobState.RUNNING


@pytest.mark.parametrize("damage", ["gone", "changed"])
async def test_a_model_that_is_not_whole_any_more_fails_the_job_by_name(stack: FinetuneStack, damage: str) -> None:
    first = await tuned(stack)
    second = await stack.create(model=str(first.model_name))
    weights = folder_of(stack, first) / ADAPTER_WEIGHTS
    weights.unlink() if damage == "gone" else weights.write_bytes(b"others")
    await stack.rounds(3)
    failed = await stack.job(second.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("model_not_found", "model")
    assert str(first.model_name) in failed.error.message


async def test_the_base_must_be_the_one_that_it_was_trained_on(stack: FinetuneStack) -> None:
    name = str((await tuned(stack)).model_name)
    other = FixedModels(msgspec.structs.replace(SMALL_MODEL, content_hash="d" * 64))
    stack.creation = stack.new_creation(starts=StartingPoints(stack.catalog, stack.blobs, other))
    with pytest.raises(InvalidRequest, match="has changed since it was trained") as refused:
        await stack.create(model=name)
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"rank": 4}, "rank"),
        ({"alpha": 16}, "alpha"),
        ({"use_rslora": True}, "use_rslora"),
        ({"target_modules": ["k_proj"]}, "target_modules"),
    ],
)
async def test_what_the_adapter_is_stays(stack: FinetuneStack, asked: dict[str, object], param: str) -> None:
    name = str((await tuned(stack)).model_name)
    with pytest.raises(InvalidRequest) as refused:
        await stack.create(model=name, hyperparameters=asked)
    assert refused.value.param == f"hyperparameters.{param}"
    same = {"rank": 8, "alpha": 8, "use_rslora": False, "target_modules": ["q_proj"], "dropout": 0.1}
    job = await stack.create(model=name, hyperparameters=same)
    assert job.lora is not None
    assert (job.lora.rank, job.lora.dropout) == (8, 0.1)


async def test_an_adapter_is_taken_in_for_a_base_model_only(stack: FinetuneStack) -> None:
    name = str((await tuned(stack)).model_name)
    with pytest.raises(InvalidRequest, match="for a base model") as refused:
        await stack.bring(model=name)
    assert refused.value.param == "model"
