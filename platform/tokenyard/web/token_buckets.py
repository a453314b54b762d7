"""Bounds how often something may happen, for each of many, in one process."""

import time
from collections import OrderedDict
from collections.abc import Callable

LONGEST_WAIT_S = 10.0
NAMES = 10_000


class TokenBucket:
    """Holds up to `burst`, and gets `per_s` back each second."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._at_s = burst, now_s

    def has_one(self, now_s: float) -> bool:
        return self.level(now_s) >= 1

    def level(self, now_s: float) -> float:
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level

    def change(self, by: float) -> None:
        self._level += by


class TokenBuckets:
    """One for each name; of those beyond `size` the longest unused is forgotten, and full when it comes back."""

    def __init__(self, per_s: float, burst: float, *, size: int, now: Callable[[], float]) -> None:
        """Take `now` in seconds, monotonic."""
        self._per_s, self._burst = per_s, burst
        self._size = size
        self._now = now
        self._by_name: OrderedDict[str, TokenBucket] = OrderedDict()

    def of(self, name: str) -> TokenBucket:
        bucket = self._by_name.get(name)
        if bucket is None:
            bucket = self._by_name[name] = TokenBucket(self._per_s, self._burst, self._now())
            if len(self._by_name) > self._size:
                self._by_name.popitem(last=False)
        self._by_name.move_to_end(name)
        return bucket


class Patience:
    """How much of our time each of many may take with what nobody pays for; who takes more has to wait.

    `share` of the time is for each, and `burst_s` at once. What `LONGEST_WAIT_S` does not make up for is forgiven.
    """

    def __init__(self, share: float, burst_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """Take `now` in seconds, monotonic."""
        self._share = share
        self._now = now
        self._buckets = TokenBuckets(share, burst_s, size=NAMES, now=now)

    def took(self, name: str, seconds: float) -> None:
        bucket = self._buckets.of(name)
        bucket.change(-min(seconds, bucket.level(self._now()) + LONGEST_WAIT_S * self._share))

    def left_s(self, name: str) -> float:
        """Return what `name` may take at once; below zero, what it is to make up for."""
        return self._buckets.of(name).level(self._now())

    def wait_s(self, name: str) -> float:
        """Return how long it takes to make up for what `name` took beyond its share."""
        return max(0.0, -self.left_s(name) / self._share)

    def is_at_its_end(self, name: str) -> bool:
        return self.wait_s(name) > LONGEST_WAIT_S * 0.9
