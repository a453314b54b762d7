"""Stage 4: which replica; a second one only while the client has been sent nothing."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokenyard.core.errors import Unavailable
from tokenyard.core.replica import Replica
from tokenyard.core.usage import MeterClaims
from tokenyard.gateway.ports import Replicas

MAX_ATTEMPTS = 2
NO_REPLICA_RETRY_AFTER_S = 5.0


class ReplicaRouter:
    """Picks replicas, and knows what this gateway itself has under way on each."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._under_way: Counter[str] = Counter()

    def pick(self, claims: MeterClaims, tried: Sequence[str]) -> Replica | None:
        """Return the best replica that is not in `tried`, or None."""
        adapter = claims.adapter.name if claims.adapter is not None else None
        offered = [one for one in self._replicas.candidates(claims.base_model) if one.name not in tried]
        if len(offered) < 2:
            return offered[0] if offered else None
        return min(offered, key=lambda one: self._order(one, adapter))

    def _order(self, replica: Replica, adapter: str | None) -> tuple[bool, bool, int, float]:
        resident = adapter is None or adapter in replica.adapters
        load = replica.running + replica.waiting + self._under_way[replica.name]
        # Chance between equals keeps many gateways from choosing alike.
        return replica.waiting > 0, not resident, load, random.random()  # noqa: S311

    @contextmanager
    def using(self, replica: Replica) -> Iterator[None]:
        """Count a request as under way on `replica`."""
        self._under_way[replica.name] += 1
        try:
            yield
        finally:
            self._under_way[replica.name] -= 1
            if not self._under_way[replica.name]:
                del self._under_way[replica.name]

    def eject(self, replica: Replica) -> None:
        self._replicas.eject(replica.name)


def no_replica(model: str) -> Unavailable:
    """Return the error for a model that nothing serves at the moment."""
    return Unavailable(
        f"No server for the model '{model}' is ready. Please try again shortly.", retry_after_s=NO_REPLICA_RETRY_AFTER_S
    )
