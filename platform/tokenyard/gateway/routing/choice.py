"""The rules of a choice between replicas: bounded load first, then what each holds, then the less busy of two.

Sources: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", arXiv 1608.01350; Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", 2001; rendezvous hashing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

BOUND = 1.25
"""Nothing that a replica holds draws a request to it while its pressure is over so many times the mean, and `SLACK`."""
SLACK = 0.25
"""To stay where a prefix or an adapter is held is worth so much more pressure."""
NOTICED = 0.125
"""By less than this two replicas are about as busy."""
_MIX, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def within_bound(pressures: Mapping[str, float]) -> Sequence[str]:
    """Return those to which a request may go: the least busy one is always among them, and none whose slots are all
    taken while another's are not.
    """
    values = pressures.values()
    bound = BOUND * sum(values) / len(pressures) + SLACK
    if bound > 1 > min(values):
        bound = 1.0
    return [name for name, pressure in pressures.items() if pressure < bound]


def best(names: Sequence[str], scores: Mapping[str, int]) -> Sequence[str]:
    """Return those of the highest score; without one it is 0."""
    highest = max(scores.get(name, 0) for name in names)
    return [name for name in names if scores.get(name, 0) == highest]


def homes(key: int, names: Sequence[str]) -> Sequence[str]:
    """Return the two of `names` that `key` belongs to, the first one first: every gateway finds the same."""
    return sorted(names, key=lambda name: _weight(key, name), reverse=True)[:2]


def unless_busier(first: str, second: str, pressures: Mapping[str, float]) -> str:
    """Return `first`, or `second` where that is noticeably less busy."""
    return first if pressures[first] < pressures[second] + NOTICED else second


def less_busy_of_two(names: Sequence[str], pressures: Mapping[str, float], chance: Callable[[], float]) -> str:
    """Return the less busy of two that chance names, so that gateways that know the same do not all choose alike."""
    at = int(chance() * len(names))
    first, second = names[at], names[at - 1 - int(chance() * (len(names) - 1))]
    return first if pressures[first] <= pressures[second] else second


def _weight(key: int, name: str) -> int:
    mixed = ((key ^ _number(name)) * _MIX) & _MASK
    return ((mixed ^ (mixed >> 32)) * _MIX) & _MASK


@lru_cache(maxsize=1024)
def _number(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())
