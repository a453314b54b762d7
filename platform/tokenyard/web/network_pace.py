"""How much of our time networks may take with what nobody pays for, each and together."""

import time
from collections.abc import Callable
from typing import NamedTuple

from tokenyard.web.token_buckets import Patience

_ALL = ""
_MODEST = 16  # who takes less than this part of its share for long does not push


class Allowance(NamedTuple):
    """`share` of the event loop's time, and so many seconds of it at once."""

    share: float
    burst_s: float


class NetworkPace:
    """Lets networks that take more time than is theirs wait with what they ask for next.

    Together, too: but those that took little until now do not wait for what others took.
    """

    def __init__(self, each: Allowance, together: Allowance, now: Callable[[], float] = time.monotonic) -> None:
        """Take `now` in seconds, monotonic."""
        self._own = Patience(each.share, each.burst_s, now=now)
        self._all = Patience(together.share, together.burst_s, now=now)
        self._modest = Patience(each.share / _MODEST, each.burst_s / 2, now=now)

    def took(self, network: str, seconds: float) -> None:
        self._own.took(network, seconds)
        self._modest.took(network, seconds)
        if self.is_pushing(network):
            self._all.took(_ALL, seconds)

    def wait_s(self, network: str) -> float:
        """Return how long a network is to wait before it is served again."""
        own = self._own.wait_s(network)
        return max(own, self._all.wait_s(_ALL)) if self.is_pushing(network) else own

    def is_pushing(self, network: str) -> bool:
        """Tell whether a network has taken much at once, or goes on taking more than a small part of its share."""
        return self._modest.left_s(network) < 0
