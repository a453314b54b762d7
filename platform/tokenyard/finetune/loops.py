"""The loops of fine-tuning that a worker process runs; any number of workers may run them."""

from functools import partial

from tokenyard.core.clock import Clock
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.ports import (
    AdapterLives,
    CanaryClient,
    CanaryReplicas,
    TrainableModels,
    TrainingFiles,
    TrainingRuns,
)
from tokenyard.finetune.reconciling.reconciler import JobReconciler
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.attempt_files import AttemptFiles
from tokenyard.finetune.steps.attempts import Attempts
from tokenyard.finetune.steps.canary import CanaryCheck
from tokenyard.finetune.steps.publishing import Publishing
from tokenyard.finetune.steps.settlement import JobSettlement
from tokenyard.finetune.steps.validation import JobValidation
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop

SCHEDULE_INTERVAL_S = 1.0
RECONCILE_INTERVAL_S = 0.5
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
    adapters: AdapterLives,
    replicas: CanaryReplicas,
    canary: CanaryClient,
    policy: TrainingPolicy,
) -> list[Loop]:
    """Return the loops: schedule waiting jobs, and bring all jobs further. No two workers share `owner`."""
    store = JobOperatorStore(database, clock)
    attempts = Attempts(files=AttemptFiles(blobs, files), runs=runs, models=models, policy=policy, clock=clock)
    publishing = Publishing(blobs=blobs, adapters=adapters, canary=CanaryCheck(replicas, canary), models=models)
    steps = {
        JobState.VALIDATING: JobValidation(files, blobs).advance,
        JobState.RUNNING: attempts.advance,
        JobState.STOPPING: attempts.stop,
        JobState.CHECKING: publishing.advance,
        JobState.SETTLING: JobSettlement(adapters=adapters, clock=clock).advance,
    }
    reconciler = JobReconciler(store=store, steps=steps, owner=owner, clock=clock)
    return [
        Loop("schedule training", partial(store.schedule, policy), SCHEDULE_INTERVAL_S),
        Loop("reconcile training", reconciler.step, RECONCILE_INTERVAL_S, max_backoff_s=RECONCILE_BACKOFF_S),
    ]
