"""The loops of evals that a worker process runs; any number of workers may run them."""

from tokenyard.core.clock import Clock
from tokenyard.evals.operator_store import EvalOperatorStore
from tokenyard.evals.ports import EvalAnswers, RowsFiles
from tokenyard.evals.work.reading import RunRows
from tokenyard.evals.work.runner import EvalRunner
from tokenyard.storage.blobs import BlobStore
from tokenyard.web.loops import Loop

RUNS_AT_ONCE = 4
RUN_INTERVAL_S = 1.0
RUN_BACKOFF_S = 5.0
DELETE_INTERVAL_S = 5.0
ITEMS_AT_ONCE = 500
ROUNDS = 20


def eval_loops(
    *,
    owner: str,
    store: EvalOperatorStore,
    files: RowsFiles,
    blobs: BlobStore,
    answers: EvalAnswers,
    clock: Clock,
) -> list[Loop]:
    """Return the loops: work on runs, some of them side by side, and delete those that are over.

    No two workers share `owner`.
    """
    runner = EvalRunner(store=store, rows=RunRows(files, blobs), answers=answers, owner=owner, clock=clock)

    async def delete_hidden() -> None:
        await store.expire()
        for _ in range(ROUNDS):
            if await store.delete_hidden(limit=ITEMS_AT_ONCE) < ITEMS_AT_ONCE:
                return

    return [
        *(
            Loop(f"run evals {n}", runner.step, RUN_INTERVAL_S, max_backoff_s=RUN_BACKOFF_S)
            for n in range(RUNS_AT_ONCE)
        ),
        Loop("delete eval runs", delete_hidden, DELETE_INTERVAL_S),
    ]
