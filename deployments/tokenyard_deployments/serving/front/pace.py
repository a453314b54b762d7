"""How soon enough will have left: from what is inside and how quickly the engine has made tokens of late. Pure.

A sequence takes as long as its tokens at the pace of one sequence, which falls with the number that run. As many as
run now run at once; one that leaves makes way for the next of the organizations in turn. Prompts need no term of their
own: while the engine reads them, the others' pace falls.
"""

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

SAMPLE_EVERY_S = 0.25
_FIRST_GUESS = 20.0  # tokens a second; holds only until the engine has made some
_MEMORY_S = 10.0  # a stall of a second must not count for much
_SMOOTHING = 0.2  # weight of the newest answer in the mean part of `max_tokens` that answers take
_LEAST_PART = 0.1  # of what an answer should take, for one that has taken it all and goes on


class Work(NamedTuple):
    """A request inside, that may still make up to `at_most` tokens over all its sequences, of which it has `made`."""

    organization: Hashable
    sequences: int
    running: int
    at_most: int
    made: int
    gains: tuple[int, ...]
    """What its leaving brings to each of the amounts that are lacking."""


class Pace:
    """What the engine did of late."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._made = 0
        self._running = 0
        # By how many run, in doublings: an engine makes more tokens in all, and fewer of each, the more it runs.
        self._tokens_a_second: dict[int, float] = {}
        self._part = 1.0

    def due(self, at: float) -> bool:
        """Tell whether another sample is of use."""
        return at - self._at >= SAMPLE_EVERY_S

    def sample(self, at: float, made: int, running: int) -> None:
        """Note that `made` tokens were made in all by now, and `running` sequences are being made."""
        sequence_seconds = (at - self._at) * (running + self._running) / 2
        if running and self._running and made > self._made:
            level = self._running.bit_length()
            pace, weight = (made - self._made) / sequence_seconds, min(1.0, (at - self._at) / _MEMORY_S)
            known = self._tokens_a_second.get(level, pace)
            self._tokens_a_second[level] = known + weight * (pace - known)
        self._at, self._made, self._running = at, made, running

    def rest(self) -> None:
        """Note that nothing is inside: the time until something is tells nothing."""
        self._running = 0

    def tokens_a_second(self, running: int) -> float:
        """Return the pace of one sequence among `running`; of the nearest number that was seen."""
        level = running.bit_length()
        nearest = min(self._tokens_a_second, key=lambda one: abs(one - level), default=None)
        return _FIRST_GUESS if nearest is None else self._tokens_a_second[nearest]

    def answered(self, made: int, at_most: int) -> None:
        """Note how long an answer became."""
        if at_most:
            self._part += _SMOOTHING * (made / at_most - self._part)

    def seconds_until(self, inside: Iterable[Work], lacking: tuple[int, ...], slots: int) -> float:
        """Return how soon as much as `lacking` will have left."""
        works = sorted(inside, key=lambda work: not work.running)
        running = sum(work.running for work in works) or sum(work.sequences for work in works)
        free = [0.0] * max(1, min(slots, running))
        seconds_a_token = 1 / self.tokens_a_second(len(free))
        ends = [0.0] * len(works)
        for index in _in_turn(works):
            ends[index] = free[0] + self._tokens_left(works[index]) * seconds_a_token
            heapq.heapreplace(free, ends[index])
        left = list(lacking)
        for end, work in sorted(zip(ends, works, strict=True), key=lambda one: one[0]):
            left = [amount - gained for amount, gained in zip(left, work.gains, strict=True)]
            if max(left) <= 0:
                return end
        return max(ends, default=0.0)

    def _tokens_left(self, work: Work) -> float:
        """Return how many tokens one of its sequences should still make."""
        expected = self._part * work.at_most
        return max(expected - work.made, _LEAST_PART * expected) / work.sequences


def _in_turn(works: list[Work]) -> list[int]:
    """Return the index of the work of each sequence, in the order in which a fair engine begins them."""
    begun: Counter[Hashable] = Counter()
    order = []
    for index, work in enumerate(works):
        first = begun[work.organization]
        order += [(first + number, index) for number in range(work.sequences)]
        begun[work.organization] += work.sequences
    return [index for _, index in sorted(order)]
