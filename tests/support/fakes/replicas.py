"""Replicas that live in memory: what Serve lists, what each holds, and all the ways they can be away."""

from collections.abc import Sequence

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Unavailable
from tokenyard.core.replica import AdapterRefused, AdapterUses, Replica, ReplicaLost, ReplicaState

SLOTS = 32
TOKENS_EACH = 10
PLACES = 3
"""Of each sequence inside, so many tokens wait to be computed."""


class FakeReplicas:
    """Stands for Serve's controller and for the internal routes of every replica."""

    def __init__(self) -> None:
        self.serve_is_up = True
        self.listed: dict[str, Replica] = {}
        self.held: dict[str, list[str]] = {}
        self.load_of: dict[str, int] = {}
        self.silent: set[str] = set()
        self.answers_as: dict[str, str] = {}  # whose name a replica tells, where not its own
        self.busy: set[str] = set()  # adapters with requests inside
        self.refused: set[str] = set()  # adapters that no replica takes
        self.room: int | None = None  # so many fit into a replica, which pushes out the oldest that is not pinned
        self.places: dict[str, int] = {}  # what a replica tells, where it is not `room` or `PLACES`
        self.rates: dict[str, dict[str, float]] = {}
        self.pinned: dict[str, tuple[str, ...]] = {}
        self.calls: list[tuple[str, str, str]] = []

    def add(self, name: str, model: str, *, adapters: Sequence[str] = (), running: int = 0) -> Replica:
        """Start a replica."""
        target = Replica(name, model, f"http://{name}.replicas")
        self.listed[name] = target
        self.held[name] = list(adapters)
        self.load_of[name] = running
        return target

    def remove(self, name: str) -> None:
        """End a replica."""
        del self.listed[name]

    async def targets(self) -> Sequence[Replica]:
        """Return what Serve lists.

        Raises:
            Unavailable: its controller is away.
        """
        if not self.serve_is_up:
            raise Unavailable("Ray Serve does not answer.")
        return list(self.listed.values())

    async def proxies(self) -> Sequence[Replica]:
        return []

    async def stats(self, target: Replica) -> ReplicaState:
        """Return the replica's state.

        Raises:
            ReplicaLost: it is silent.
        """
        self._check(target.name)
        held = tuple(self.held[target.name])
        name = self.answers_as.get(target.name, target.name)
        running = self.load_of[target.name]
        return ReplicaState(name, target.model, held, running, 0, SLOTS, TOKENS_EACH * running)

    async def serves(self, target: Replica) -> bool:
        """Tell whether the replica is there: none of them drains."""
        self._check(target.name)
        return True

    async def uses(self, replica: Replica) -> AdapterUses:
        """Return how often it is asked for adapters.

        Raises:
            ReplicaLost: it is silent.
        """
        self._check(replica.name)
        return AdapterUses(
            self.rates.get(replica.name, {}), self.pinned.get(replica.name, ()), self.places_of(replica.name)
        )

    async def pin(self, replica: Replica, names: Sequence[str]) -> None:
        """Keep these from now on.

        Raises:
            ReplicaLost: it is silent.
        """
        self._check(replica.name)
        self.pinned[replica.name] = tuple(names)

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter.

        Raises:
            ReplicaLost: it is silent.
            AdapterRefused: the adapter is one that nobody takes.
        """
        self._check(replica.name)
        self.calls.append(("load", replica.name, adapter.name))
        if adapter.name in self.refused:
            raise AdapterRefused("its shapes do not fit")
        held = self.held[replica.name]
        if adapter.name in held:
            return
        if self.room is not None and len(held) >= self.places_of(replica.name):
            held.remove(next(name for name in held if name not in self.pinned.get(replica.name, ())))
        held.append(adapter.name)

    async def unload(self, replica: Replica, name: str) -> None:
        """Unload an adapter.

        Raises:
            ReplicaLost: it is silent.
            AdapterRefused: requests are inside.
        """
        self._check(replica.name)
        self.calls.append(("unload", replica.name, name))
        if name in self.busy:
            raise AdapterRefused("requests are inside")
        if name in self.held[replica.name]:
            self.held[replica.name].remove(name)

    def places_of(self, name: str) -> int:
        return self.places.get(name, PLACES if self.room is None else self.room)

    def _check(self, name: str) -> None:
        if name in self.silent or name not in self.listed:
            raise ReplicaLost("ConnectionRefusedError")
