"""The loops of fine-tuning that a worker process runs; any number of workers may run them."""

from tokenyard.core.clock import Clock
from tokenyard.finetune.attempt_folder import AttemptFolder
from tokenyard.finetune.attempts import Attempts
from tokenyard.finetune.cleaning import FileCleaner
from tokenyard.finetune.files import FileStore
from tokenyard.finetune.operator_store import FileOperatorStore, JobOperatorStore
from tokenyard.finetune.policy import TrainingPolicy
from tokenyard.finetune.ports import AdapterCatalog, AdapterGate, BaseModels, TrainingRuns, UsageSink
from tokenyard.finetune.publishing import Publishing
from tokenyard.finetune.reconciler import Reconciler
from tokenyard.finetune.settlement import Settlement
from tokenyard.finetune.states import JobState
from tokenyard.finetune.validation import Validation
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop

SCHEDULE_INTERVAL_S = 1.0
RECONCILE_INTERVAL_S = 0.5
CLEAN_INTERVAL_S = 60.0


def finetune_loops(
    *,
    owner: str,
    database: Database,
    blobs: BlobStore,
    clock: Clock,
    models: BaseModels,
    runs: TrainingRuns,
    adapters: AdapterCatalog,
    gate: AdapterGate,
    usage: UsageSink,
    policy: TrainingPolicy,
) -> list[Loop]:
    """Return the loops: schedule waiting jobs, bring all jobs further, clean up files. No two workers share `owner`."""
    store = JobOperatorStore(database, clock)
    attempts = Attempts(store=store, folder=AttemptFolder(blobs), runs=runs, models=models, policy=policy, clock=clock)
    publishing = Publishing(store=store, blobs=blobs, catalog=adapters, gate=gate, models=models)
    reconciler = Reconciler(
        store=store,
        handlers={
            JobState.VALIDATING: Validation(store, blobs).advance,
            JobState.RUNNING: attempts.advance,
            JobState.STOPPING: attempts.stop,
            JobState.CHECKING: publishing.advance,
            JobState.SETTLING: Settlement(store=store, catalog=adapters, usage=usage, clock=clock).advance,
        },
        owner=owner,
        clock=clock,
    )
    cleaner = FileCleaner(leftovers=FileOperatorStore(database, clock), files=FileStore(database, clock), blobs=blobs)

    async def schedule() -> None:
        await store.schedule(policy)

    return [
        Loop("schedule training", schedule, SCHEDULE_INTERVAL_S),
        Loop("reconcile training", reconciler.step, RECONCILE_INTERVAL_S),
        Loop("clean up files", cleaner.step, CLEAN_INTERVAL_S),
    ]
