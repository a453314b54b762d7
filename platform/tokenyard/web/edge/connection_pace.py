"""How fast connections may come that cost time, and bring nothing that anybody pays for."""

import time
from collections.abc import Callable

from tokenyard.web.token_buckets import Patience

# Of the event loop's time. For one network: 100 new connections a second and 500 at once, or fewer that are refused.
SHARE, BURST_S = 0.01, 0.05
SHARE_OF_ALL, BURST_OF_ALL_S = 0.03, 0.15
CONNECTION_S, REFUSAL_S = 0.0001, 0.0004
_ALL = ""


class ConnectionPace:
    """Lets networks that take more time than is theirs wait with their next connections.

    Together, too: but those that took little until now do not wait for what others took.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Take `now` in seconds, monotonic."""
        self._own = Patience(SHARE, BURST_S, now=now)
        self._all = Patience(SHARE_OF_ALL, BURST_OF_ALL_S, now=now)

    def took(self, network: str, seconds: float) -> None:
        self._own.took(network, seconds)
        if self.is_pushing(network):
            self._all.took(_ALL, seconds)

    def wait_s(self, network: str) -> float:
        """Return how long the next connection of a network is to wait."""
        own = self._own.wait_s(network)
        return max(own, self._all.wait_s(_ALL)) if self.is_pushing(network) else own

    def is_pushing(self, network: str) -> bool:
        """Tell whether a network has taken much of what it may take at once."""
        return self._own.left_s(network) < BURST_S / 2
