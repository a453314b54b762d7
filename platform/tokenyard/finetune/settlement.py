"""The last step of a job: its usage event is on its way to the ledger before its end is told."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.finetune.jobs import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import AdapterCatalog, UsageSink
from tokenyard.finetune.progress import Note
from tokenyard.finetune.states import JobState, Outcome
from tokenyard.metering.events import TrainingFinished


class Settlement:
    """`settling` -> the end. A death between the event and the end sends the event again; the ledger drops it."""

    def __init__(self, *, store: JobOperatorStore, catalog: AdapterCatalog, usage: UsageSink, clock: Clock) -> None:
        self._store = store
        self._catalog = catalog
        self._usage = usage
        self._clock = clock

    async def advance(self, job: Job) -> Job:
        """Send the usage event, which also releases what was reserved, and end the job.

        Raises:
            JobChanged: somebody else changed the job.
        """
        assert job.outcome is not None, "a job is settled only after its outcome is decided"
        if job.adapter is not None and job.outcome is not Outcome.SUCCEEDED:
            await self._catalog.fail(job.organization, job.adapter, f"the job {job.id} {job.outcome}")
        await self._usage.emit(_event_of(job))
        finished_at = job.finished_at or self._clock.now_ms() // 1000
        after = msgspec.structs.replace(
            job, state=JobState(job.outcome.value), finished_at=finished_at, trained_tokens=job.trained_tokens or 0
        )
        return await self._store.save(job, after, notes=_last_words(job))


def _event_of(job: Job) -> TrainingFinished:
    succeeded = job.outcome is Outcome.SUCCEEDED
    return TrainingFinished(
        organization=job.organization,
        project=job.project,
        key=job.key,
        job=job.id,
        model=str(job.model_name) if succeeded else job.model,
        base_model=job.model,
        price=job.price,
        trained_tokens=job.trained_tokens or 0,
        admitted_at_ms=job.admitted_at_ms,
    )


def _last_words(job: Job) -> list[Note]:
    if job.outcome is Outcome.SUCCEEDED:
        return [
            Note(message=f"New fine-tuned model created: {job.model_name}", source="model"),
            Note(message="The job has successfully completed", source="end"),
        ]
    if job.outcome is Outcome.FAILED and job.error is not None:
        return [Note(message=f"The job failed: {job.error.message}", level="error", source="end")]
    return [Note(message=f"The job has stopped; {job.trained_tokens or 0} trained tokens are charged", source="end")]
