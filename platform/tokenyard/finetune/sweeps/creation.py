"""Creates the trials of a sweep: all of them, or none."""

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
        request.check()

        async def plan() -> list[Job]:
            return _trials([await self._creation.planned(principal, trial) for trial in request.trials()])

        jobs = await self._creation.create_all(principal.organization, plan, request.digest, idempotency_key)
        return Sweep(tuple(jobs))

    async def estimate(self, principal: Principal, request: SweepRequest) -> list[Estimate]:
        """Return what each trial would take; raises what creation would, but for money and limits."""
        request.check()
        estimates = [await self._creation.estimate(principal, trial) for trial in request.trials()]
        _trials(estimates)
        return estimates


def _trials(planned: list[Estimate]) -> list[Job]:
    """Return the jobs as those of one sweep."""
    seen = []
    for job in (each.job for each in planned):
        if job.hyperparameters in seen:
            raise InvalidRequest(
                "The training file is so small that two of these batches would be alike.", param="sweep.batch_size"
            )
        seen.append(job.hyperparameters)
    sweep = new_sweep_id()
    return [msgspec.structs.replace(each.job, sweep=sweep, trial=number) for number, each in enumerate(planned)]
