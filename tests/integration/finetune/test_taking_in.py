"""An adapter that a tenant brings goes through the same gate as one that was trained here, and costs nothing."""

import json
import pickle

import msgspec
import pytest

from support.finetune.adapter_files import LAYERS, adapter_weights, lora_tensors, safetensors
from support.finetune.ports import SMALL_MODEL, FixedModels
from support.finetune.stack import FOLDERS_KEPT_MS, FinetuneStack, principal
from tokenyard.core.adapters import AdapterRules
from tokenyard.core.errors import InvalidRequest, RateLimited
from tokenyard.core.training import AdapterManifest, adapter_digest
from tokenyard.files.loops import cleaning_loop
from tokenyard.files.operator_store import FileOperatorStore
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.operator_store import files_in_use
from tokenyard.finetune.states import JobState


def error_of(job: Job) -> JobError:
    assert job.error is not None
    return job.error


async def refused(stack: FinetuneStack, job: Job) -> JobError:
    """Return why a job failed; nothing of its adapter ever was in the catalog, and it costs nothing."""
    await stack.rounds(2)
    failed = await stack.job(job.id)
    assert failed.status == "failed"
    assert stack.catalog.lives == {}
    assert [event.trained_tokens for event in await stack.charges()] == [0]
    assert await stack.blobs.names("adapters/org_acme") == []
    return error_of(failed)


async def test_it_is_checked_published_and_live(stack: FinetuneStack) -> None:
    job = await stack.bring(r=4, lora_alpha=32, lora_dropout=0.1, note="kept nowhere")
    assert stack.reservations.open == {job.id: 0}
    await stack.rounds()
    done = await stack.job(job.id)
    assert (done.status, done.trained_tokens, done.attempt) == ("succeeded", 0, 0)
    assert str(done.model_name) == f"ft:small-model:acme:own:{done.adapter}"
    assert done.adapter is not None
    assert stack.catalog.lives[done.adapter] == ["checking", "live"]
    path, digest = stack.catalog.paths[done.adapter]
    manifest = msgspec.json.decode(await stack.blobs.read(f"{path}/manifest.json"), type=AdapterManifest)
    assert (manifest.digest, manifest.rank, manifest.base_model) == (digest, 4, "small-model")
    assert (adapter_digest(manifest.files), manifest.base_content_hash) == (digest, "c" * 64)
    config = json.loads(await stack.blobs.read(f"{path}/adapter_config.json"))
    assert AdapterRules(16).check(config) == 4
    assert (config["lora_alpha"], config["base_model_name_or_path"]) == (32, "small-model")
    assert "kept nowhere" not in json.dumps(config)
    assert stack.cluster.submissions == []
    assert [event.trained_tokens for event in await stack.charges()] == [0]
    assert await stack.messages(done) == [
        f"Created fine-tuning job: {job.id}",
        f"Validating adapter file: {job.training_file}",
        "The adapter keeps the rules; checking the model",
        f"New fine-tuned model created: {done.model_name}",
        "The job has successfully completed",
    ]


NAN = {name: (shape, b"\x00\x00\xc0\x7f" * (len(values) // 4)) for name, (shape, values) in lora_tensors().items()}
ZERO = {name: (shape, bytes(len(values))) for name, (shape, values) in lora_tensors().items()}


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        (adapter_weights(dimension=17), "shape_mismatch"),
        (adapter_weights(layers=LAYERS + 1), "shape_mismatch"),
        (adapter_weights(rank=2), "shape_mismatch"),
    ],
    ids=["another width", "a layer too many", "another rank than its config"],
)
async def test_what_does_not_fit_the_base_fails_with_the_rule(stack: FinetuneStack, weights: bytes, code: str) -> None:
    error = await refused(stack, await stack.bring(weights=weights))
    assert (error.code, error.param) == (code, "training_file")


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        (safetensors(NAN), "not_finite"),
        (safetensors(ZERO), "all_zero"),
        (pickle.dumps({"weight": 1}), "adapter_damaged"),
        (adapter_weights()[:-1], "adapter_damaged"),
    ],
    ids=["nan", "zero", "pickle", "cut"],
)
async def test_the_worker_trusts_no_upload(stack: FinetuneStack, weights: bytes, code: str) -> None:
    job = await stack.bring()
    await stack.blobs.write(stack.files.path(job.organization, job.training_file), weights)
    assert (await refused(stack, job)).code == code


async def test_layers_that_the_config_does_not_name(stack: FinetuneStack) -> None:
    tensors = {name.replace("q_proj", "v_proj"): tensor for name, tensor in lora_tensors().items()}
    assert (await refused(stack, await stack.bring(weights=safetensors(tensors)))).code == "module_not_allowed"


async def test_a_base_whose_files_are_elsewhere_is_left_to_the_replica(stack: FinetuneStack) -> None:
    models = FixedModels()
    models.base_shapes = None
    worker = stack.new_worker(models=models)
    fits = await stack.bring()
    for _ in range(3):
        await stack.round(worker)
    assert (await stack.job(fits.id)).status == "succeeded"
    stack.replicas.unfit = "A weight has the shape [4, 17]; the base model and the rank need [4, 16]."
    misfit = await stack.bring(weights=adapter_weights(dimension=17))
    for _ in range(3):
        await stack.round(worker)
    failed = await stack.job(misfit.id)
    assert (failed.status, error_of(failed).code) == ("failed", "model_check_failed"), "it is not tried again and again"
    assert error_of(failed).message == stack.replicas.unfit
    assert failed.adapter is not None
    assert stack.catalog.lives[failed.adapter] == ["checking", "retired"]


async def test_one_that_changes_nothing_fails_at_the_canary(stack: FinetuneStack) -> None:
    stack.replicas.shift = 0.0
    job = await stack.bring()
    await stack.rounds()
    failed = await stack.job(job.id)
    assert failed.status == "failed"
    assert failed.adapter is not None
    assert stack.catalog.lives[failed.adapter] == ["checking", "retired"]


async def test_without_a_replica_it_waits_and_then_gives_up(stack: FinetuneStack) -> None:
    stack.replicas.present = False
    job = await stack.bring()
    await stack.rounds(2)
    waiting = await stack.job(job.id)
    assert waiting.waits_for == "a replica of the base model"
    assert stack.replicas.called_for == {waiting.model}, "it may be asleep"
    stack.clock.advance(stack.policy.checking_timeout_s)
    await stack.rounds(2)
    assert error_of(await stack.job(job.id)).code == "timeout"


async def test_a_cancel_needs_no_cluster(stack: FinetuneStack) -> None:
    stack.replicas.present, stack.cluster.down = False, True
    job = await stack.bring()
    await stack.rounds(2)
    await stack.jobs.cancel(job.organization, job.id)
    await stack.rounds(2)
    cancelled = await stack.job(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.adapter is not None
    assert stack.catalog.lives[cancelled.adapter] == ["checking", "retired"]


async def test_its_file_cannot_go_while_it_is_needed(stack: FinetuneStack) -> None:
    job = await stack.bring()
    with pytest.raises(InvalidRequest) as kept:
        await stack.files.begin_delete(job.organization, job.training_file)
    assert kept.value.code == "file_in_use"
    await stack.rounds()
    await stack.files.begin_delete(job.organization, job.training_file)
    await cleaning_loop(FileOperatorStore(stack.database, stack.clock, files_in_use), stack.files, stack.blobs).step()
    done = await stack.job(job.id)
    assert await stack.blobs.exists(f"adapters/org_acme/{done.adapter}/manifest.json"), "the model goes on without it"


async def test_uploads_are_bounded_as_jobs_are(stack: FinetuneStack) -> None:
    stack.replicas.present = False
    for _ in range(20):
        await stack.bring()
    with pytest.raises(RateLimited):
        await stack.bring()
    assert await stack.bring(principal("umbra")), "and nobody else's"


async def test_two_workers_bring_it_to_one_end(stack: FinetuneStack) -> None:
    job = await stack.bring()
    one, two = stack.new_worker(), stack.new_worker()
    for _ in range(3):
        await stack.round(one)
        await stack.round(two)
    assert (await stack.job(job.id)).state is JobState.SUCCEEDED
    assert list(stack.catalog.lives.values()) == [["checking", "live"]]


async def test_a_model_may_serve_smaller_adapters_only(stack: FinetuneStack) -> None:
    small = msgspec.structs.replace(SMALL_MODEL, max_lora_rank=2)
    stack.creation = stack.new_creation(models=FixedModels(small))
    with pytest.raises(InvalidRequest) as refusal:
        await stack.bring(r=4)
    assert (refusal.value.code, refusal.value.param) == ("rank_not_allowed", "method.adapter.config")


@pytest.mark.parametrize("brought", [True, False], ids=["brought", "trained"])
async def test_the_folder_of_a_job_goes_when_nothing_needs_it(stack: FinetuneStack, brought: bool) -> None:
    job = await (stack.bring() if brought else stack.create())
    await stack.rounds(2)
    if not brought:
        await stack.cluster.succeed(f"{job.id}-1", tokens=5)
    await stack.rounds(2)
    done = await stack.job(job.id)
    assert done.status == "succeeded"
    assert await stack.blobs.names(f"jobs/org_acme/{job.id}") != []
    goes_on = await stack.create()
    await stack.rounds(2)
    stack.clock.advance(FOLDERS_KEPT_MS / 1000 + 120)
    await stack.rounds(2)
    assert await stack.blobs.names(f"jobs/org_acme/{job.id}") == []
    assert await stack.blobs.exists(f"adapters/org_acme/{done.adapter}/manifest.json")
    assert await stack.blobs.names(f"jobs/org_acme/{goes_on.id}") != [], "one that has just ended keeps its own"


async def test_a_folder_that_cannot_be_deleted_is_tried_again(
    stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await stack.bring() for _ in range(2)]
    await stack.rounds(3)
    stack.clock.advance(FOLDERS_KEPT_MS / 1000 + 120)
    delete = stack.blobs.delete

    async def fails_for_one(path: str) -> None:
        if jobs[0].id in path:
            raise OSError("the disk says no")
        await delete(path)

    with monkeypatch.context() as patched:
        patched.setattr(stack.blobs, "delete", fails_for_one)
        await stack.round()
    left = [await stack.blobs.names(f"jobs/org_acme/{job.id}") for job in jobs]
    assert [bool(names) for names in left] == [True, False]
    await stack.round()
    assert await stack.blobs.names(f"jobs/org_acme/{jobs[0].id}") == []
