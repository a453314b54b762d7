"""Connections between two requests: kept for the next one until their time is up, or somebody else needs the place."""

from collections import defaultdict
from typing import Protocol


class IdleConnection(Protocol):
    def end_idle(self) -> None: ...


class IdleConnections:
    """In the order in which they became idle, in all and of each network."""

    def __init__(self) -> None:
        self._network_of: dict[IdleConnection, str] = {}
        self._of: defaultdict[str, dict[IdleConnection, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._network_of)

    def add(self, connection: IdleConnection, network: str) -> None:
        self._network_of[connection] = network
        self._of[network][connection] = None

    def discard(self, connection: IdleConnection) -> None:
        network = self._network_of.pop(connection, None)
        if network is None:
            return
        of_network = self._of[network]
        del of_network[connection]
        if not of_network:
            del self._of[network]

    def end_longest(self, network: str | None = None) -> bool:
        """End the one that is idle for longest, of `network` or of all; tell whether there was one."""
        found = next(iter(self._network_of if network is None else self._of.get(network, ())), None)
        if found is None:
            return False
        self.discard(found)
        found.end_idle()
        return True
