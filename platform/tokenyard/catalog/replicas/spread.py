"""Which replica of a base model is to hold which adapter: rendezvous hashing with bounded load. Pure.

An adapter goes to the replica that comes first in its own order of them, unless that has more than its part already;
when a replica comes or goes, only what it gains or held moves. One that is asked for so much that it is a replica's
whole work is spread over several. Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"
(1998); Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads" (2018).
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

OVER_MEAN = 1.25
"""By so much a replica may have more than the mean, of adapters and, as long as the others have places, of requests."""


class Demand(NamedTuple):
    """An adapter that is to be in memory somewhere; `rate` is requests a second over all replicas."""

    name: str
    rate: float = 0.0


class _Part:
    """What one replica is given; `free` counts the places that nothing is in and that nothing is to be loaded into."""

    def __init__(self, free: int) -> None:
        self.names: list[str] = []
        self.rate = 0.0
        self.free = free


def spread(
    demands: Sequence[Demand], held: Mapping[str, Collection[str]], room: Mapping[str, int]
) -> dict[str, list[str]]:
    """Return for each replica in `held` which adapters it is to have, the most important ones first.

    `demands` come in the order of importance; `held` says what each replica holds, which it keeps rather than another
    begins to. What a replica does not hold goes to one that has a free place rather than to one that would have to
    push something out. A replica is given at most its `room`, and about the part of all that it is of all rooms; what
    fits nowhere is nobody's.
    """
    parts = {replica: _Part(room[replica] - len(names)) for replica, names in held.items()}
    places = sum(room[replica] for replica in parts)
    if not places:
        return {replica: [] for replica in parts}
    total = sum(demand.rate for demand in demands)
    copies = {demand.name: _copies(demand.rate, total, len(parts)) for demand in demands}
    wanted = sum(copies.values())
    most = {replica: _most(wanted * room[replica] / places, room[replica]) for replica in parts}
    highest_rate = OVER_MEAN * total / len(parts)
    for demand in demands:
        rate = demand.rate / copies[demand.name]
        order = _order(demand.name, held)
        fitting = [one for one in order if len(parts[one].names) < most[one]]
        # A stable sort: those that would get too much work come last, the least busy of them first.
        fitting.sort(
            key=lambda one: (
                max(0.0, parts[one].rate + rate - highest_rate),
                demand.name not in held[one] and parts[one].free <= 0,
            )
        )
        for replica in fitting[: copies[demand.name]]:
            parts[replica].names.append(demand.name)
            parts[replica].rate += rate
            parts[replica].free -= demand.name not in held[replica]
    return {replica: part.names for replica, part in parts.items()}


def _most(share: float, room: int) -> int:
    return min(room, max(math.ceil(share), int(OVER_MEAN * share)))


def _copies(rate: float, total: float, replicas: int) -> int:
    return min(replicas, 1 + int(rate / total * replicas)) if total else 1


def _order(name: str, held: Mapping[str, Collection[str]]) -> list[str]:
    return sorted(held, key=lambda replica: (name in held[replica], _weight(name, replica)), reverse=True)


def _weight(name: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{name} {replica}".encode(), digest_size=8).digest()
