"""What fine-tuning needs from others; `bootstrap` gives the implementations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenyard.core.adapters import AdapterRef, FineTunedName
from tokenyard.core.catalog import BaseModel
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.price import Price
from tokenyard.core.replica import Replica
from tokenyard.core.training import RunStatus
from tokenyard.metering.events import TrainingFinished


class BaseModels(Protocol):
    """The served base models (catalog)."""

    def get(self, model: str) -> BaseModel | None:
        """Return the base model of this id, or None."""
        ...


class TrainingPrices(Protocol):
    """The dated rate cards (billing)."""

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what a base model, or an adapter of it, costs at `at_ms`; None where it has no price then."""
        ...


class Reservations(Protocol):
    """Sets money aside for a job (billing). The job's `TrainingFinished` event closes it."""

    async def reserve(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId, job: JobId, amount: NanoDollars
    ) -> None:
        """Reserve on every budget or on none. Reserving again for a job takes nothing more.

        Raises:
            QuotaExceeded: a budget does not cover it; nothing is reserved.
        """
        ...


class OrganizationNames(Protocol):
    """Names of organizations (tenancy)."""

    async def slug(self, organization: OrganizationId) -> str:
        """Return the part of a model's name that stands for the organization."""
        ...


class TrainingRuns(Protocol):
    """Runs training attempts in the cluster (Ray's Jobs API)."""

    async def submit(
        self, submission_id: str, entrypoint: str, *, env: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Start an attempt; submitting an id again changes nothing.

        Raises:
            Unavailable: the cluster does not answer; the attempt may have been started.
        """
        ...

    async def status(self, submission_id: str) -> RunStatus | None:
        """Return how an attempt is, or None where the cluster does not know it.

        Raises:
            Unavailable: the cluster does not answer.
        """
        ...

    async def stop(self, submission_id: str) -> None:
        """Ask an attempt to stop; fine where it does not run.

        Raises:
            Unavailable: the cluster does not answer.
        """
        ...


class AdapterCatalog(Protocol):
    """The life of adapters: training, checking, live, retired (catalog). Every call may be repeated."""

    async def register(
        self,
        organization: OrganizationId,
        *,
        project: ProjectId,
        name: FineTunedName,
        path: str,
        digest: str,
        job: JobId,
    ) -> None:
        """Note an adapter that is published in the blob store and is being checked."""
        ...

    async def promote(self, organization: OrganizationId, adapter: AdapterId) -> None:
        """Make a checked adapter live: its organization can call it by name from now on."""
        ...

    async def fail(self, organization: OrganizationId, adapter: AdapterId, reason: str) -> None:
        """Retire an adapter that did not pass or is not wanted any more; fine where it was never registered."""
        ...


class ReplicaList(Protocol):
    """Which replicas there are (worker's discovery)."""

    async def of(self, model: str) -> Sequence[Replica]:
        """Return the replicas of a base model that may get requests."""
        ...


class ReplicaControl(Protocol):
    """The internal routes of replicas (clients)."""

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter; one that is loaded already is fine.

        Raises:
            ReplicaLost: it does not answer.
            AdapterRefused: it cannot take this adapter, or has no room for it now.
        """
        ...

    async def canary(self, url: str, adapter: str | None, prompt: str) -> Sequence[float]:
        """Return the log-probabilities of a fixed continuation of `prompt`, from a loaded adapter or from the base.

        Raises:
            ReplicaLost: it does not answer.
            AdapterRefused: the adapter is not loaded, or no slot became free.
        """
        ...


class AdapterGate(Protocol):
    """The last check before an adapter is live."""

    async def check(self, base_model: str, adapter: AdapterRef) -> None:
        """Prove the adapter on a running replica.

        Raises:
            GateRefused: it must not go live.
            NoReplica: there is no replica to prove it on now.
        """
        ...


class UsageSink(Protocol):
    """The usage stream, on the way to the ledger."""

    async def emit(self, event: TrainingFinished) -> None:
        """Put the event on its way. Consumers drop a second event of the same job.

        Raises:
            Exception: it is not known to be on its way; emit again.
        """
        ...
