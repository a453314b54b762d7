"""Which servers elsewhere are left alone for a while, because they cannot be reached or say that they cannot serve."""

import time
from collections.abc import Callable

import msgspec

from tokenyard.gateway.elsewhere.errors import MAX_RETRY_AFTER_S

FIRST_S = 1.0
LONGEST_S = 15.0
"""Where a server says nothing of when to come back."""


class _Pause(msgspec.Struct):
    until: float = 0.0
    failures: int = 0


class BackOff:
    """A pause ends by itself; the next request is the question whether the server is there again."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pauses: dict[str, _Pause] = {}

    def wait_s(self, server: str) -> float:
        """Return how long the server is left alone yet; 0 where it may be asked."""
        pause = self._pauses.get(server)
        return 0.0 if pause is None else max(0.0, pause.until - self._now())

    def failed(self, server: str, retry_after_s: float | None) -> None:
        """Pause as long as the server says, within a minute, or twice as long as the last time."""
        pause = self._pauses.setdefault(server, _Pause())
        if self.wait_s(server) > 0:
            return  # one of many requests that were under way when it failed
        wait_s = min(LONGEST_S, FIRST_S * 2**pause.failures) if retry_after_s is None else retry_after_s
        pause.failures = min(pause.failures + 1, 10)
        pause.until = self._now() + min(max(wait_s, FIRST_S), MAX_RETRY_AFTER_S)

    def answered(self, server: str) -> None:
        self._pauses.pop(server, None)
