"""The ways a job's end is decided; `settlement` carries them out.

Who pays: a job that succeeds pays for every token it trained on; one that its tenant cancels pays for the tokens that
its training reported when it stopped, or nothing where it reported none; one that fails pays nothing.
"""

import msgspec

from tokenyard.core.training import TrainingResult
from tokenyard.finetune.jobs import Job, JobError
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.progress import Note
from tokenyard.finetune.states import TRAINING, JobState, Outcome


async def fail(store: JobOperatorStore, job: Job, error: JobError) -> Job:
    """Decide that the job fails; whatever may still run is stopped first.

    Raises:
        JobChanged: somebody else changed the job.
    """
    state = JobState.STOPPING if job.state in TRAINING else JobState.SETTLING
    after = msgspec.structs.replace(
        job, state=state, outcome=Outcome.FAILED, error=error, trained_tokens=0, waits_for=None
    )
    return await store.save(job, after)


async def wait_for(store: JobOperatorStore, job: Job, what: str | None) -> Job:
    """Say what the job waits for, once for each thing; None: it waits for nothing any more.

    Raises:
        JobChanged: somebody else changed the job.
    """
    if what == job.waits_for:
        return job
    notes = (Note(message=f"The job is waiting for {what}"),) if what else ()
    return await store.save(job, msgspec.structs.replace(job, waits_for=what), notes=notes)


def billable_tokens(job: Job, result: TrainingResult | None) -> int:
    """Return what a job trained on, never more than was reserved for it."""
    return min(result.trained_tokens, job.reserved_tokens) if result is not None else 0
