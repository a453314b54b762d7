"""What stands in the place of training where a tenant brings an adapter: its file is checked and rewritten, whole."""

import asyncio
import hashlib

import msgspec

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules, WeightsCheck
from tokenyard.core.clock import Clock
from tokenyard.core.ids import new_adapter_id
from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    MANIFEST_FILE,
    AdapterManifest,
    LoraSettings,
    adapter_digest,
    job_folder,
)
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.methods.adapter import check_weights
from tokenyard.finetune.ports import TrainableModels, TrainingFiles
from tokenyard.finetune.progress import JobProgress, Note, fail
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.publishing import hashed
from tokenyard.storage.blobs import BlobStore


class TakingIn:
    """`validating_files` -> `checking`, or failed with the rule that the adapter breaks.

    It leaves in the job's folder what training leaves there, so that both are published alike. Nothing of what the
    tenant wrote gets there but the values of the weights.
    """

    def __init__(
        self, *, files: TrainingFiles, blobs: BlobStore, models: TrainableModels, policy: TrainingPolicy, clock: Clock
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._models = models
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        assert job.lora is not None, "only jobs that bring an adapter come here"
        base = self._models.get(job.model)
        if base is None:
            return fail(job, JobError("model_not_found", f"The model {job.model} is not served any more."))
        try:
            manifest = await self._write(job, job.lora, base.content_hash)
        except FileNotFoundError:
            return _failed("invalid_training_file", f"The file {job.training_file} is gone.", job)
        except AdapterNotAllowed as refused:
            return _failed(refused.code, refused.message, job)
        after = msgspec.structs.replace(
            job,
            state=JobState.CHECKING,
            adapter=new_adapter_id(),
            digest=manifest.digest,
            trained_tokens=0,
            deadline_ms=self._clock.now_ms() + int(self._policy.checking_timeout_s * 1000),
        )
        return JobProgress(after, (Note(message="The adapter keeps the rules; checking the model", source="taken in"),))

    async def _write(self, job: Job, lora: LoraSettings, base_content_hash: str | None) -> AdapterManifest:
        folder = f"{job_folder(job.organization, job.id, job.attempt)}/{ADAPTER_FOLDER}"
        shapes = await asyncio.to_thread(self._models.shapes, job.model)
        rules = AdapterRules(self._models.rules(job.model).max_rank, lora.target_modules)
        check = WeightsCheck(rules, base=shapes, rank=lora.rank)
        weights, config = hashlib.sha256(), _config(job.model, lora)
        sent = self._blobs.read_stream(self._files.path(job.organization, job.training_file))
        await self._blobs.write_stream(f"{folder}/{ADAPTER_WEIGHTS}", hashed(check_weights(check, sent), weights))
        await self._blobs.write(f"{folder}/{ADAPTER_CONFIG}", config)
        files = {ADAPTER_WEIGHTS: weights.hexdigest(), ADAPTER_CONFIG: hashlib.sha256(config).hexdigest()}
        manifest = AdapterManifest(
            files=files,
            digest=adapter_digest(files),
            base_model=job.model,
            rank=lora.rank,
            target_modules=lora.target_modules,
            base_content_hash=base_content_hash,
        )
        await self._blobs.write(f"{folder}/{MANIFEST_FILE}", msgspec.json.encode(manifest))
        return manifest


def _config(base_model: str, lora: LoraSettings) -> bytes:
    """Write the `adapter_config.json` that vLLM reads."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": lora.target_modules,
        "use_rslora": lora.use_rslora,
        "bias": "none",
        "inference_mode": True,
    }
    return msgspec.json.encode(config)


def _failed(code: str, message: str, job: Job) -> JobProgress:
    return fail(job, JobError(code, message, "training_file"))
