"""How often each adapter is asked for: requests a second, of which those of long ago count less and less."""

import math
from collections.abc import Callable

MEMORY_S = 60.0
"""What is so old counts for a third."""
MAX_KNOWN = 4096
_LEAST = 1e-3


class UseRates:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since = now()
        self._uses: dict[str, float] = {}

    def count(self, name: str) -> None:
        if name not in self._uses and len(self._uses) >= MAX_KNOWN:
            self._fade()
            if len(self._uses) >= MAX_KNOWN:
                return
        self._uses[name] = self._uses.get(name, 0.0) + 1

    def all(self) -> dict[str, float]:
        """Return requests a second by adapter, of those that are asked for at all."""
        self._fade()
        return {name: uses / MEMORY_S for name, uses in self._uses.items()}

    def _fade(self) -> None:
        now = self._now()
        left = math.exp((self._since - now) / MEMORY_S)
        self._since = now
        self._uses = {name: uses * left for name, uses in self._uses.items() if uses * left > _LEAST}
