"""What the catalog needs from others."""

from collections.abc import Sequence
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.price import Price
from tokenyard.core.replica import Replica, ReplicaState, ReplicaTarget


class PriceLookup(Protocol):
    """Knows prices, in memory (billing)."""

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms` (unix ms); None without a price."""
        ...


class ServeTargets(Protocol):
    """Knows which replicas Ray Serve runs (clients)."""

    async def targets(self) -> Sequence[ReplicaTarget]:
        """Return every replica that Serve sends traffic to.

        Raises:
            Unavailable: Serve's controller does not answer.
        """
        ...


class ReplicaControl(Protocol):
    """The internal routes of replicas (clients). Every method raises `ReplicaLost` where the replica is away."""

    async def stats(self, target: ReplicaTarget) -> ReplicaState:
        """Return what a replica holds and does."""
        ...

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter; one that is loaded already is fine.

        Raises:
            AdapterRefused: it cannot take this adapter.
        """
        ...

    async def unload(self, replica: Replica, name: str) -> None:
        """Unload an adapter; one that is not loaded is fine.

        Raises:
            AdapterRefused: requests are inside; ask again later.
        """
        ...
