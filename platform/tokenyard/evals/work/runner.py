"""Works on runs, one turn after another, whatever died in between.

A run is leased to one worker at a time; work that would outlive its lease is cancelled, and whatever is written is
fenced by it. What came of a row is written as soon as it is known, so a run goes on from there.
"""

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from functools import partial

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, QuotaExceeded
from tokenyard.evals.criteria import criteria_of
from tokenyard.evals.operator_store import LEASE_MS, EvalOperatorStore, RunTaken
from tokenyard.evals.ports import EvalAnswers
from tokenyard.evals.runs.data_source import data_source_of
from tokenyard.evals.runs.run import EvalRun, EvalRunState, RunError, RunTally
from tokenyard.evals.work.grading import PATIENCE_S, RowGrading, state_of, with_item
from tokenyard.evals.work.reading import RowsProblem, RunRows
from tokenyard.web.leases import KeptLease

ROWS_AT_ONCE = 4
TURN_S = 60.0
"""Then another run has its turn: a long one does not keep short ones waiting."""
AFTER_FAILURE_MS = 5_000
_LOG = logging.getLogger(__name__)


class EvalRunner:
    """`owner` names the worker in its leases."""

    def __init__(
        self,
        *,
        store: EvalOperatorStore,
        rows: RunRows,
        answers: EvalAnswers,
        owner: str,
        clock: Clock,
        lease: KeptLease | None = None,
        turn_s: float = TURN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._store = store
        self._rows = rows
        self._answers = answers
        self._owner = owner
        self._clock = clock
        self._lease = lease or KeptLease(LEASE_MS)
        self._turn_s = turn_s
        self._patience_s = patience_s
        self._computing = asyncio.Lock()

    async def step(self) -> None:
        """Give the run that waits for the longest time a turn."""
        asked_at = asyncio.get_running_loop().time()
        run = await self._store.claim(self._owner, for_ms=self._lease.ms)
        if run is None:
            return
        renew = partial(self._store.lease, self._owner, run.id, for_ms=self._lease.ms)
        due_in_ms = AFTER_FAILURE_MS
        try:
            async with self._lease.kept(renew, since=asked_at):
                await self._turn(run)
            due_in_ms = 0
        except* (RunTaken, TimeoutError):
            _LOG.info("%s was cancelled or deleted, or its lease is lost", run.id)
        finally:
            await self._store.lease(self._owner, run.id, for_ms=due_in_ms)

    async def _turn(self, run: EvalRun) -> None:
        assert run.deadline_ms is not None, "whoever claims a run sets it"
        if self._clock.now_ms() > run.deadline_ms:
            error = RunError("timeout", "The run took too long. What was graded by then is there.")
            await self._store.end(self._owner, run.id, EvalRunState.FAILED, error)
            return
        if run.total is None:
            try:
                async with aclosing(self._rows.read(run)) as rows:
                    await self._store.take_in(self._owner, run, rows)
            except (RowsProblem, QuotaExceeded) as problem:
                error = RunError(problem.code or "", str(problem))
                await self._store.end(self._owner, run.id, EvalRunState.FAILED, error)
                return
        waiting = deque(await self._store.pending(run.id))
        await self._grade(run, waiting)
        if not waiting:
            await self._store.end(self._owner, run.id, EvalRunState.COMPLETED)

    async def _grade(self, run: EvalRun, waiting: deque[int]) -> None:
        """Grade rows, some of them at once, until none waits or the turn is over."""
        grading = self._grading(run)
        progress = _Progress(run.tally)
        until = asyncio.get_running_loop().time() + self._turn_s

        async def work() -> None:
            while waiting and asyncio.get_running_loop().time() < until:
                number = waiting.popleft()
                item = await grading.of(number, await self._store.item(run.id, number))
                async with progress.lock:
                    tally = with_item(progress.tally, item)
                    state = state_of(item)
                    await self._store.finish_item(self._owner, run.id, number, item, state=state, tally=tally)
                    progress.tally = tally

        async with asyncio.TaskGroup() as group:
            for _ in range(ROWS_AT_ONCE):
                group.create_task(work())

    def _grading(self, run: EvalRun) -> RowGrading:
        content = run.content
        try:
            source = data_source_of(content.data_source)
            criteria = criteria_of(content.testing_criteria)
        except InvalidRequest as error:
            raise AssertionError(f"{run.id} was checked when it was created") from error
        return RowGrading(run, source, criteria, self._answers, self._computing, patience_s=self._patience_s)


class _Progress:
    """What has come of the run so far; whoever adds to it holds the lock."""

    def __init__(self, tally: RunTally) -> None:
        self.tally = tally
        self.lock = asyncio.Lock()
