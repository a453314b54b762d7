"""What the catalog needs from others."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import OrganizationId
from tokenyard.core.replica import AdapterUses, Replica, ReplicaState


class ServeTargets(Protocol):
    """Knows which replicas Ray Serve sends traffic to (clients); raises `Unavailable` where its controller is away."""

    async def targets(self) -> Sequence[Replica]: ...

    async def proxies(self) -> Sequence[Replica]:
        """Return where to ask for the models that have no replica; Serve holds a request there until they have one."""
        ...


class ReplicaControl(Protocol):
    """The internal routes of replicas (clients). Every method raises `ReplicaLost` where the replica is away.

    `AdapterRefused`: the replica cannot take this adapter, or requests use it. Doing either again is fine.
    """

    async def stats(self, target: Replica) -> ReplicaState: ...

    async def serves(self, target: Replica) -> bool:
        """Tell whether Serve sends it requests, as the replica knows: not any more when it drains."""
        ...

    async def uses(self, replica: Replica) -> AdapterUses: ...

    async def pin(self, replica: Replica, names: Sequence[str]) -> None: ...

    async def load(self, replica: Replica, adapter: AdapterRef) -> None: ...

    async def unload(self, replica: Replica, name: str) -> None: ...


class PinningPlans(Protocol):
    """Knows how many of an organization's adapters are to be in memory at all times, because its plan says so."""

    async def pinned_adapters(self) -> Mapping[OrganizationId, int]:
        """Return the number for each organization that has any."""
        ...
