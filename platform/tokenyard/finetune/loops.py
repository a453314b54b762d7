"""The loops of fine-tuning that a worker process runs; any number of workers may run them."""

import logging
from functools import partial

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Unavailable
from tokenyard.core.training import attempts_folder
from tokenyard.finetune.checkpoints.operator_store import CheckpointOperatorStore
from tokenyard.finetune.checkpoints.publishing import CheckpointPublishing
from tokenyard.finetune.grader_runs.training_questions import TrainingQuestions
from tokenyard.finetune.job import Job
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import (
    AdapterLives,
    CanaryClient,
    CanaryReplicas,
    ModelAnswers,
    TrainableModels,
    TrainingFiles,
    TrainingNodes,
    TrainingPlans,
    TrainingReservations,
    TrainingRuns,
)
from tokenyard.finetune.progress import JobProgress
from tokenyard.finetune.reconciling.reconciler import JobReconciler
from tokenyard.finetune.results.result_file import ResultFile
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.attempt_files import AttemptFiles
from tokenyard.finetune.steps.attempts import Attempts
from tokenyard.finetune.steps.canary import CanaryCheck
from tokenyard.finetune.steps.check_files import CheckFiles
from tokenyard.finetune.steps.evaluating import Evaluating
from tokenyard.finetune.steps.going_live import GoingLive
from tokenyard.finetune.steps.publishing import Publishing
from tokenyard.finetune.steps.settlement import JobSettlement
from tokenyard.finetune.steps.taking_in import TakingIn
from tokenyard.finetune.steps.validation import JobValidation
from tokenyard.finetune.sweeps.comparing import Comparing
from tokenyard.finetune.sweeps.operator_store import SweepOperatorStore
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database, EventLog
from tokenyard.web.loops import Loop

_LOG = logging.getLogger(__name__)
SCHEDULE_INTERVAL_S = 1.0
RECONCILE_INTERVAL_S = 0.5
CHECKPOINTS_INTERVAL_S = 1.0
FOLDERS_INTERVAL_S = 60.0
FOLDERS_AT_ONCE = 50
RECONCILE_BACKOFF_S = 2.0  # a job that fails waits on its own; the others do not wait with it


def finetune_loops(
    *,
    owner: str,
    database: Database,
    blobs: BlobStore,
    clock: Clock,
    files: TrainingFiles,
    models: TrainableModels,
    runs: TrainingRuns,
    nodes: TrainingNodes,
    plans: TrainingPlans,
    reservations: TrainingReservations,
    adapters: AdapterLives,
    replicas: CanaryReplicas,
    canary: CanaryClient,
    answers: ModelAnswers,
    policy: TrainingPolicy,
    events: EventLog,
    folders_kept_ms: int,
) -> list[Loop]:
    """Return the loops: schedule waiting jobs, bring all further, and checkpoints; delete what is left of ended ones.

    No two workers share `owner`.
    """
    store = JobOperatorStore(database, clock, events)
    attempts = Attempts(files=AttemptFiles(blobs, files), runs=runs, models=models, policy=policy, clock=clock)
    going_live = GoingLive(blobs=blobs, adapters=adapters, canary=CanaryCheck(replicas, canary), models=models)
    checkpoints = CheckpointPublishing(
        store=CheckpointOperatorStore(database, clock),
        blobs=blobs,
        models=models,
        adapters=adapters,
        going_live=going_live,
        policy=policy,
        clock=clock,
        owner=owner,
    )
    taking_in = TakingIn(files=files, blobs=blobs, models=models, policy=policy, clock=clock)
    settlement = JobSettlement(adapters=adapters, clock=clock, evaluation_timeout_s=policy.evaluation_timeout_s)
    validation = JobValidation(
        files=CheckFiles(blobs, files),
        blobs=blobs,
        runs=runs,
        reservations=reservations,
        models=models,
        taking_in=taking_in,
        policy=policy,
        clock=clock,
    )

    async def stop(job: Job) -> JobProgress:
        return await (attempts if job.attempt else validation).stop(job)

    advance, pause = (TrainingQuestions(step, blobs, answers).advance for step in (attempts.advance, attempts.pause))
    steps = {
        JobState.VALIDATING: validation.advance,
        JobState.RUNNING: advance,
        JobState.PAUSING: pause,
        JobState.RESUMING: pause,
        JobState.PAUSED: attempts.give_up_paused,
        JobState.STOPPING: stop,
        JobState.COMPARING: Comparing(SweepOperatorStore(database), policy, clock).advance,
        JobState.CHECKING: Publishing(going_live).advance,
        JobState.SETTLING: ResultFile(settlement.advance, store, files, blobs).advance,
        JobState.EVALUATING: Evaluating(files=files, blobs=blobs, answers=answers, clock=clock).advance,
    }
    reconciler = JobReconciler(store=store, steps=steps, owner=owner, clock=clock)
    return [
        Loop("schedule training", partial(store.schedule, policy, plans, nodes), SCHEDULE_INTERVAL_S),
        Loop("reconcile training", reconciler.step, RECONCILE_INTERVAL_S, max_backoff_s=RECONCILE_BACKOFF_S),
        Loop("publish checkpoints", checkpoints.step, CHECKPOINTS_INTERVAL_S, max_backoff_s=RECONCILE_BACKOFF_S),
        _folder_loop(store, blobs, clock, folders_kept_ms),
    ]


def _folder_loop(store: JobOperatorStore, blobs: BlobStore, clock: Clock, kept_ms: int) -> Loop:
    async def delete_folders() -> None:
        before_s = (clock.now_ms() - kept_ms) // 1000
        for organization, job in await store.with_folders(ended_before_s=before_s, limit=FOLDERS_AT_ONCE):
            try:
                await blobs.delete(attempts_folder(organization, job))
            except (Unavailable, OSError) as error:  # the next round tries again; meanwhile others may go
                _LOG.warning("the folder of %s cannot be deleted now: %r", job, error)
            else:
                await store.folder_deleted(job)

    return Loop("delete job folders", delete_folders, FOLDERS_INTERVAL_S)
