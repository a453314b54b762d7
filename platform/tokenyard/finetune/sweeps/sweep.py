"""A sweep as a value: its trials, which of them is published, and when.

Nothing here asks for a lock. What a decision goes by never changes back: a job that is not untrained any more stays so,
what it measured is measured once, and an outcome is final. So whoever looks later decides the same, or more.
"""

import math
from typing import Literal

import msgspec

from tokenyard.core.ids import SweepId
from tokenyard.core.training import merit
from tokenyard.finetune.job import Job
from tokenyard.finetune.states import FINISHED, UNTRAINED, JobState

SweepStatus = Literal["running", "succeeded", "failed", "cancelled"]
UNDECIDED = UNTRAINED | {JobState.CHECKING}
"""States of a trial for which the others wait: it may be the best, or is, if it passes the gate."""


class Sweep(msgspec.Struct, frozen=True):
    """All trials of a sweep, in the order of its grid."""

    trials: tuple[Job, ...]

    @property
    def id(self) -> SweepId:
        found = self.trials[0].sweep
        assert found is not None, "each of its trials has it"
        return found

    @property
    def kept(self) -> Job | None:
        """The trial whose model is live."""
        return next((trial for trial in self.trials if trial.published_model is not None), None)

    @property
    def next_checked(self) -> Job | None:
        """The trial whose turn it is to be published: the best of those that wait, the first of several as good.

        None while one may be better, or is being checked, and once one is kept. One that fails there, or is cancelled,
        leaves its turn to the next best.
        """
        if self.kept is not None or any(trial.state in UNDECIDED for trial in self.trials):
            return None
        return max((trial for trial in self.trials if trial.state is JobState.COMPARING), key=_merit, default=None)

    @property
    def has_ended(self) -> bool:
        return all(trial.state in FINISHED for trial in self.trials)

    @property
    def status(self) -> SweepStatus:
        statuses = {trial.status for trial in self.trials}
        if not statuses <= {"succeeded", "failed", "cancelled"}:
            return "running"
        if self.kept is not None:
            return "succeeded"
        return "failed" if "failed" in statuses else "cancelled"


def _merit(trial: Job) -> float:
    """Return how good a trial is; one that measured nothing is worse than any other."""
    return -math.inf if trial.held_out is None else merit(trial.held_out.tuned)
