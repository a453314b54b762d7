"""What the gateway needs from others; `bootstrap` hands it the implementations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.catalog import ResolvedModel
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.replica import Replica
from tokenyard.metering.events import Settled


class ModelCatalog(Protocol):
    """The models of one organization: the base models and its own fine-tunes."""

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel:
        """Return what `name` stands for, from a local cache where possible.

        Raises:
            ModelNotFound: no such model, or another organization's.
        """
        ...


class Admission(Protocol):
    """Limits and holds. Renewing the holds that are open is its own affair."""

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Take the hold.

        Raises:
            RateLimited, QuotaExceeded, Unauthenticated, Unavailable
        """
        ...

    async def settle(self, settled: Settled, cost: NanoDollars) -> None:
        """Release the hold and put the usage event on its way; never raises for a Redis that is away."""
        ...


class Replicas(Protocol):
    """The last good list of replicas, in memory."""

    def candidates(self, model: str) -> Sequence[Replica]:
        """Return the replicas of base model `model` that may get new requests."""
        ...

    def eject(self, name: str) -> None:
        """Stop offering a replica that failed, until discovery lists it afresh."""
        ...


class Reply(Protocol):
    """A model server's answer, read as it comes. `close` before the end aborts the request there."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after_s(self) -> float | None: ...

    async def chunk(self) -> bytes:
        """Return the next bytes, or b"" at the proper end.

        Raises:
            ReplicaLost: the connection was cut before the end.
        """
        ...

    async def body(self, limit: int) -> bytes:
        """Return all of it.

        Raises:
            ReplicaLost: cut before the end, or longer than `limit` bytes.
        """
        ...

    def close(self) -> None: ...


class ModelServer(Protocol):
    """Speaks HTTP to replicas."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request and return the reply once its status is known.

        Raises:
            ReplicaLost: no connection, or cut before the status.
        """
        ...
