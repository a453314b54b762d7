"""Time as a dependency, so that tests can hold it still."""

import time
from typing import Protocol

HONEST_MS = 5_000
"""So far apart may the clocks of two hosts be."""


class Clock(Protocol):
    def now_ms(self) -> int:
        """Return unix milliseconds."""
        ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
