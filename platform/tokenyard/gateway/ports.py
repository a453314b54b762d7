"""What the gateway needs from others; `bootstrap` hands it the implementations."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.core.models import ResolvedModel
from tokenyard.core.money import NanoDollars
from tokenyard.core.replica import Replica, ReplicaLoad, ReplyLimits
from tokenyard.gateway.endpoints.answer import KeptAnswer
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.metering.events import Settled


class ModelResolver(Protocol):
    """The base models, an organization's own fine-tunes, and its aliases; anything else raises `ModelNotFound`."""

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel: ...


class AdmissionControl(Protocol):
    """Limits and holds. Renewing the holds that are open is its own affair."""

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Take the hold, or raise RateLimited, QuotaExceeded, PrincipalOutdated or Unavailable."""
        ...

    def settle(self, settled: Settled, cost: NanoDollars) -> Awaitable[None]:
        """Begin to release the hold and to put the usage event on its way, also where Redis is away.

        Nobody needs to wait for what is returned, and no cancellation reaches what was begun.
        Where the client left, `cost` is not known yet: all that was held stays taken until the ledger has decided.
        """
        ...


class Replicas(Protocol):
    """The last good list of replicas, in memory. An ejected one is offered only where there is no other, until
    discovery lists it afresh.
    """

    def candidates(self, model: str) -> Sequence[Replica]:
        """Return the replicas of base model `model` that may be asked now, in no order."""
        ...

    def eject(self, name: str) -> None: ...

    def call_for(self, model: str) -> None:
        """Say that a replica of base model `model` is waited for, until the next look: that wakes one that sleeps."""
        ...

    async def looked(self) -> None:
        """Return after the next look at the list, which also tells of what is called for."""
        ...


class Reply(Protocol):
    """A model server's answer, read as it comes: `chunk` returns b"" at the proper end. Any other end raises
    `ReplicaLost`, and a reply over its limits `ReplyOverdue`. `close` before the end aborts the request there.
    """

    @property
    def status(self) -> int: ...

    @property
    def retry_after_s(self) -> float | None: ...

    @property
    def length(self) -> int | None: ...

    async def chunk(self) -> bytes: ...

    async def beginning(self, size: int) -> bytes:
        """Return the whole body, or of one over `size` bytes somewhat more than those, which are its first."""
        ...

    def close(self) -> None: ...


class ReplicaReply(Reply, Protocol):
    """A replica's answer, with what it said of its load as it began."""

    @property
    def load(self) -> ReplicaLoad | None: ...


class ModelServer(Protocol):
    """Speaks HTTP to replicas. Until the status is there: `ReplicaUnreachable` where there is no connection,
    `ReplicaLost` where it was cut, `ConnectionStale` where that was a kept one, `ReplyOverdue` for one over `limits`.
    """

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limits: ReplyLimits) -> ReplicaReply: ...


class ServerElsewhere(Protocol):
    """Speaks HTTP, with TLS, to servers that are not ours; raises what `ModelServer` does. `heard` is called when the
    request went out: from then on it may cost.
    """

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limits: ReplyLimits, heard: Callable[[], None]
    ) -> Reply: ...


class StoredAnswers(Protocol):
    """Answers that are kept for a project, and the conversations that they make."""

    async def check_room(self, organization: OrganizationId) -> None:
        """Raise `QuotaExceeded` where the organization has no room left, `Unavailable` where nothing can be kept."""
        ...

    async def begin(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        """Write an answer that is yet to be made, under a lease, or raise `Unavailable`."""
        ...

    async def renew(self, answers: Sequence[str]) -> Collection[str]:
        """Renew the leases of answers that are being made; return those that are still wanted, of all tenants.

        Raises:
            Unavailable: they cannot be renewed at the moment.
        """
        ...

    async def note(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        """Write down what has come of an answer that is being made. Raises nothing for SQL."""
        ...

    async def keep(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        """Write an answer; where that takes long, it goes on after this returns. Raises nothing for SQL."""
        ...

    async def conversation(
        self, organization: OrganizationId, project: ProjectId, response: str, came: Callable[[int], None]
    ) -> Sequence[Json]:
        """Return all items up to the end of a response, or raise `InvalidRequest` where there is no such.

        `came` is told how many bytes are read, and may raise.
        """
        ...

    async def items(
        self,
        organization: OrganizationId,
        project: ProjectId,
        wanted: Mapping[str, str],
        came: Callable[[int], None],
    ) -> Mapping[str, Json]:
        """Return items by their ids, or raise `InvalidRequest`; `wanted` tells the response that each belongs to."""
        ...
