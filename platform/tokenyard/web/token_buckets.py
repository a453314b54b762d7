"""Bounds how often something may happen, for each of many, in one process."""

from collections import OrderedDict
from collections.abc import Callable


class TokenBucket:
    """Holds up to `burst`, and gets `per_s` back each second."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._at_s = burst, now_s

    def has_one(self, now_s: float) -> bool:
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level >= 1

    def change(self, by: int) -> None:
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
