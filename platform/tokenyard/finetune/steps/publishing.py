"""Publishes an adapter that is better than its base, or was asked for all the same."""

import msgspec

from tokenyard.core.errors import Conflict, InvalidRequest, QuotaExceeded
from tokenyard.core.training import ADAPTER_FOLDER, job_folder
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.progress import JobProgress, Note, fail, unchanged, wait_for
from tokenyard.finetune.results.held_out import HeldOut
from tokenyard.finetune.states import JobOutcome, JobState
from tokenyard.finetune.steps.canary import CanaryFailed, NoReplica
from tokenyard.finetune.steps.going_live import GoingLive, UnusableAdapter

_CHECK_FAILED = "model_check_failed"


class Publishing:
    """`checking` -> `settling`."""

    def __init__(self, going_live: GoingLive) -> None:
        self._going_live = going_live

    async def advance(self, job: Job) -> JobProgress:
        if job.held_out is not None and not job.held_out.is_better and not job.publish_if_worse:
            return _no_better(job, job.held_out)
        try:
            await self._make_live(job)
        except NoReplica as missing:
            return wait_for(job, str(missing))
        except (UnusableAdapter, CanaryFailed) as refused:
            return fail(job, JobError(_CHECK_FAILED, str(refused)))
        except QuotaExceeded as refused:
            return fail(job, JobError(refused.code or _CHECK_FAILED, refused.message))
        except (InvalidRequest, Conflict) as refused:
            return fail(job, JobError(_CHECK_FAILED, refused.message))
        after = msgspec.structs.replace(job, state=JobState.SETTLING, outcome=JobOutcome.SUCCEEDED, waits_for=None)
        return JobProgress(after, _as_asked(job))

    async def _make_live(self, job: Job) -> None:
        name = job.model_name
        assert name is not None, "a job is checked only after it has an adapter"
        source = f"{job_folder(job.organization, job.id, job.attempt)}/{ADAPTER_FOLDER}"
        await self._going_live.bring(
            job, name, source, digest=job.digest, fence=unchanged(job), last_step=job.last_step
        )


def _no_better(job: Job, found: HeldOut) -> JobProgress:
    """Discard a model that nobody wants; the work on it is done, and paid for."""
    message = (
        f"On the validation file the model is no better than its base: {found}. It is not published, and what was "
        "trained is charged. Check that the two files are of one kind, or train with other hyperparameters; to have "
        "such a model all the same, create the job with `publish_if_worse`."
    )
    refused = fail(job, JobError("no_improvement", message, "validation_file"))
    return JobProgress(msgspec.structs.replace(refused.job, trained_tokens=job.trained_tokens))


def _as_asked(job: Job) -> tuple[Note, ...]:
    if job.held_out is None or job.held_out.is_better:
        return ()
    message = f"The model is no better than its base ({job.held_out}); it is published because that was asked for"
    return (Note(message=message, level="warn", source="published if worse"),)
