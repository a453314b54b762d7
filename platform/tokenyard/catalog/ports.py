"""What the catalog needs from others."""

from collections.abc import Sequence
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.replica import Replica, ReplicaState


class ServeTargets(Protocol):
    """Knows which replicas Ray Serve sends traffic to (clients); raises `Unavailable` where its controller is away."""

    async def targets(self) -> Sequence[Replica]: ...


class ReplicaControl(Protocol):
    """The internal routes of replicas (clients). Every method raises `ReplicaLost` where the replica is away.

    `AdapterRefused`: the replica cannot take this adapter, or requests use it. Doing either again is fine.
    """

    async def stats(self, target: Replica) -> ReplicaState: ...

    async def serves(self, target: Replica) -> bool:
        """Tell whether Serve sends it requests, as the replica knows: not any more when it drains."""
        ...

    async def load(self, replica: Replica, adapter: AdapterRef) -> None: ...

    async def unload(self, replica: Replica, name: str) -> None: ...
