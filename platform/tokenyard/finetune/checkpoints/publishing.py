"""Makes the last checkpoints of a job callable, each from when it is whole, and takes earlier ones out of service.

It goes on beside the job, so that neither waits for the other, and after it. The checkpoint of the last step is the
model itself where there is one: it waits for the job's end.
"""

import asyncio
import logging
from functools import partial

from tokenyard.core.adapters import AdapterNotAllowed
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, QuotaExceeded
from tokenyard.core.ids import AdapterId
from tokenyard.core.training import (
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    CHECKPOINT_FILE,
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    job_folder,
    step_folder,
)
from tokenyard.finetune.checkpoints.operator_store import CheckpointOperatorStore, CheckpointTaken, DueCheckpoint
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import LEASE_MS
from tokenyard.finetune.ports import AdapterLives, TrainableModels
from tokenyard.finetune.progress import Note
from tokenyard.finetune.reconciling.reconciler import STEP_TIMEOUT_S
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import FINISHED, JobOutcome
from tokenyard.finetune.steps.adapter_writing import AdapterWriting
from tokenyard.finetune.steps.canary import CanaryFailed, NoReplica
from tokenyard.finetune.steps.going_live import GoingLive, UnusableAdapter
from tokenyard.storage.blobs import BlobStore
from tokenyard.web.leases import KeptLease

_LOG = logging.getLogger(__name__)
CHECKPOINTS_AT_ONCE = 4
LOOK_AGAIN_MS = 1_000
AFTER_FAILURE_MS = 5_000
_GONE = "its files are gone"


class CheckpointPublishing:
    """One worker's share of the work; `owner` names the worker in its leases."""

    def __init__(
        self,
        *,
        store: CheckpointOperatorStore,
        blobs: BlobStore,
        models: TrainableModels,
        adapters: AdapterLives,
        going_live: GoingLive,
        policy: TrainingPolicy,
        clock: Clock,
        owner: str,
        lease: KeptLease | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._models = models
        self._adapters = adapters
        self._going_live = going_live
        self._writing = AdapterWriting(blobs, models)
        self._policy = policy
        self._clock = clock
        self._owner = owner
        self._lease = lease or KeptLease(LEASE_MS)

    async def step(self) -> None:
        """Bring some that are due further, side by side.

        Raises:
            ExceptionGroup: what went wrong with some of them; they are due again after a while.
        """
        asked_at = asyncio.get_running_loop().time()
        found = await self._store.claim(self._owner, limit=CHECKPOINTS_AT_ONCE, for_ms=self._lease.ms)
        results = await asyncio.gather(*(self._work(due, asked_at) for due in found), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise BaseExceptionGroup("checkpoints could not be brought further", failures)

    async def _work(self, due: DueCheckpoint, leased_at: float) -> None:
        look_again_in_ms = AFTER_FAILURE_MS
        try:
            renew = partial(self._store.lease, due, for_ms=self._lease.ms)
            async with self._lease.kept(renew, since=leased_at), asyncio.timeout(STEP_TIMEOUT_S):
                await self._advance(due)
            look_again_in_ms = LOOK_AGAIN_MS
        except CheckpointTaken:
            _LOG.warning("another worker took up the checkpoint %s", due.id)
            return
        finally:
            await self._store.lease(due, for_ms=look_again_in_ms)

    async def _advance(self, due: DueCheckpoint) -> None:
        job, is_last = due.job, due.job.last_step == due.step
        if due.has_had_its_time:
            await self._end(due)
        elif is_last and job.outcome is JobOutcome.SUCCEEDED and job.state in FINISHED:
            await self._live(due, job.adapter)
        elif not is_last or job.state in FINISHED:
            await self._try_to_make_live(due)

    async def _end(self, due: DueCheckpoint) -> None:
        if due.adapter is not None:
            await self._adapters.fail(due.job.organization, due.adapter, "later checkpoints took its place")
        await self._store.done(due, None)

    async def _try_to_make_live(self, due: DueCheckpoint) -> None:
        try:
            await self._make_live(due)
        except NoReplica as missing:
            if self._is_overdue(due.job):
                await self._refused(due, f"it waited too long for {missing}")
        except FileNotFoundError:
            await self._refused(due, _GONE)
        except (UnusableAdapter, CanaryFailed) as refused:
            await self._refused(due, str(refused))
        except (AdapterNotAllowed, QuotaExceeded, InvalidRequest, Conflict) as refused:
            await self._refused(due, refused.message)

    async def _make_live(self, due: DueCheckpoint) -> None:
        job = due.job
        assert job.model_name is not None, "a job has a name from its first checkpoint on"
        name = job.model_name.at_step(due.step)
        source = await self._adapter(job, due.step)
        await self._going_live.bring(job, name, source, digest=None, fence=self._store.held(due))
        await self._live(due, name.adapter)

    async def _live(self, due: DueCheckpoint, adapter: AdapterId | None) -> None:
        note = Note(message=f"The checkpoint of step {due.step} can be called", source=f"checkpoint:{due.step}")
        await self._store.done(due, adapter, note)

    async def _refused(self, due: DueCheckpoint, why: str) -> None:
        if due.job.model_name is not None:
            adapter = due.job.model_name.at_step(due.step).adapter
            await self._adapters.fail(due.job.organization, adapter, why)
        message = f"The checkpoint of step {due.step} cannot be called: {why}"
        await self._store.done(due, None, Note(message=message, level="warn", source=f"checkpoint:{due.step}"))

    async def _adapter(self, job: Job, step: int) -> str:
        """Return the folder of the checkpoint's adapter, as it is published; `FileNotFoundError` where it is gone."""
        checkpoint = await self._folder(job, step)
        folder, base = f"{checkpoint}/{ADAPTER_FOLDER}", self._models.get(job.model)
        if base is None or job.lora is None:
            raise UnusableAdapter(f"The base model {job.model} is not served any more.")
        if not await self._blobs.exists(f"{folder}/{MANIFEST_FILE}"):
            weights = self._blobs.read_stream(f"{checkpoint}/{ADAPTER_WEIGHTS}")
            await self._writing.write(weights, folder, base, job.lora)
        return folder

    async def _folder(self, job: Job, step: int) -> str:
        """Return the checkpoint's folder of the newest attempt that made it."""
        for attempt in range(job.attempt, 0, -1):
            folder = step_folder(f"{job_folder(job.organization, job.id, attempt)}/{CHECKPOINTS_FOLDER}", step)
            if await self._blobs.exists(f"{folder}/{CHECKPOINT_FILE}"):
                return folder
        raise FileNotFoundError(step_folder(CHECKPOINTS_FOLDER, step))

    def _is_overdue(self, job: Job) -> bool:
        """Tell whether a job ended so long ago that its checkpoints are given up."""
        given_s = self._policy.checking_timeout_s
        return job.finished_at is not None and self._clock.now_ms() / 1000 > job.finished_at + given_s
