"""A clock that stands still until it is told to move."""


class FrozenClock:
    """`core.clock.Clock` for tests; also a callable, for what takes a plain function of time."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        """Take unix seconds."""
        self._now = now

    def now_ms(self) -> int:
        return round(self._now * 1000)

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
