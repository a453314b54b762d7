"""What stands in the place of training where a tenant brings an adapter: its file is checked and rewritten, whole."""

import msgspec

from tokenyard.core.adapters import AdapterNotAllowed
from tokenyard.core.clock import Clock
from tokenyard.core.ids import new_adapter_id
from tokenyard.core.training import ADAPTER_FOLDER, job_folder
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.ports import TrainableModels, TrainingFiles
from tokenyard.finetune.progress import JobProgress, Note, fail
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.adapter_writing import AdapterWriting
from tokenyard.storage.blobs import BlobStore


class TakingIn:
    """`validating_files` -> `checking`, or failed with the rule that the adapter breaks.

    It leaves in the job's folder what training leaves there, so that both are published alike.
    """

    def __init__(
        self, *, files: TrainingFiles, blobs: BlobStore, models: TrainableModels, policy: TrainingPolicy, clock: Clock
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._models = models
        self._writing = AdapterWriting(blobs, models)
        self._policy = policy
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        assert job.lora is not None, "only jobs that bring an adapter come here"
        base = self._models.get(job.model)
        if base is None:
            return fail(job, JobError("model_not_found", f"The model {job.model} is not served any more."))
        folder = f"{job_folder(job.organization, job.id, job.attempt)}/{ADAPTER_FOLDER}"
        sent = self._blobs.read_stream(self._files.path(job.organization, job.training_file))
        try:
            manifest = await self._writing.write(sent, folder, base, job.lora)
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


def _failed(code: str, message: str, job: Job) -> JobProgress:
    return fail(job, JobError(code, message, "training_file"))
