"""Creates the trials of a sweep: all of them, or none."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import new_sweep_id
from tokenyard.core.principal import Principal
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.job import Job
from tokenyard.finetune.planning.estimate import Estimate
from tokenyard.finetune.sweeps.sweep import Sweep
from tokenyard.finetune.sweeps.sweep_request import SweepRequest


class SweepCreation:
    """Turns a request into jobs that are scheduled, paid for and ended each on its own."""

    def __init__(self, creation: JobCreation) -> None:
        self._creation = creation

    async def create(self, principal: Principal, request: SweepRequest, idempotency_key: str | None = None) -> Sweep:
        """Create a sweep; under an idempotency key that has one, return that one.

        Raises what `JobCreation.create` does, for all trials together: none is left behind.
        """
        principal.check_not_blocked()
        request.check()

        async def plan() -> list[Job]:
            jobs = [(await self._creation.planned(principal, trial)).job for trial in request.trials()]
            _check_all_differ(jobs)
            sweep = new_sweep_id()
            return [msgspec.structs.replace(job, sweep=sweep, trial=number) for number, job in enumerate(jobs)]

        jobs = await self._creation.create_all(principal.organization, plan, request.digest, idempotency_key)
        return Sweep(tuple(jobs))

    async def estimate(self, principal: Principal, request: SweepRequest) -> list[Estimate]:
        """Return what each trial would take; raises what creation would, but for money and limits."""
        request.check()
        estimates = [await self._creation.estimate(principal, trial) for trial in request.trials()]
        _check_all_differ([each.job for each in estimates])
        return estimates


def _check_all_differ(jobs: Sequence[Job]) -> None:
    tried = [job.hyperparameters for job in jobs]
    if any(each in tried[:number] for number, each in enumerate(tried)):
        raise InvalidRequest(
            "The training file is so small that two of these batches would be alike.", param="sweep.batch_size"
        )
