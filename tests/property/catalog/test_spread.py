"""Whatever is asked for: no replica has more than its room or its part, and little moves as replicas come and go."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.catalog.replicas.spread import OVER_MEAN, Demand, spread

REPLICAS = st.integers(1, 8).map(lambda count: {f"replica-{number}": () for number in range(count)})
DEMANDS = st.lists(st.floats(0, 100), max_size=80).map(
    lambda rates: [Demand(f"adapter-{number}", rate) for number, rate in enumerate(rates)]
)


def spread_evenly(demands: list[Demand], held: Mapping[str, Collection[str]], room: int) -> dict[str, list[str]]:
    """Spread over replicas of the same room."""
    return spread(demands, held, dict.fromkeys(held, room))


@given(DEMANDS, REPLICAS, st.integers(1, 40))
def test_nobody_has_more_than_fits_or_than_its_part(
    demands: list[Demand], held: dict[str, tuple[str, ...]], room: int
) -> None:
    parts = spread_evenly(demands, held, room)
    assert parts.keys() == held.keys()
    copies = Counter(name for part in parts.values() for name in part)
    most = max(map(len, parts.values()))
    assert most <= room
    assert most <= math.ceil(OVER_MEAN * (len(demands) + len(held)) / len(held)) or copies.total() > len(demands)
    assert all(len(set(part)) == len(part) for part in parts.values())
    if len(demands) <= room:
        assert copies.keys() == {demand.name for demand in demands}, "what fits somewhere is somewhere"


@given(DEMANDS, REPLICAS, st.integers(1, 40))
def test_what_is_there_stays_there(demands: list[Demand], held: dict[str, tuple[str, ...]], room: int) -> None:
    parts = spread_evenly(demands, held, room)
    assert spread_evenly(demands, parts, room) == parts


def test_cold_adapters_are_spread_evenly_and_once() -> None:
    demands = [Demand(f"adapter-{number}") for number in range(100)]
    parts = spread_evenly(demands, {f"replica-{number}": () for number in range(4)}, 32)
    assert sorted(name for part in parts.values() for name in part) == sorted(one.name for one in demands)
    assert all(18 <= len(part) <= 32 for part in parts.values())


def test_one_that_is_asked_for_by_all_is_on_all() -> None:
    demands = [Demand("hot", 60), *(Demand(f"adapter-{number}", 1) for number in range(40))]
    parts = spread_evenly(demands, {f"replica-{number}": () for number in range(4)}, 32)
    assert sum("hot" in part for part in parts.values()) == 3  # more than half of all, of four
    assert sum(map(len, parts.values())) == 43


def test_the_work_is_spread_too() -> None:
    demands = [Demand(f"adapter-{number}", 100 / (1 + number)) for number in range(100)]
    held: dict[str, tuple[str, ...]] = {f"replica-{number}": () for number in range(4)}
    parts = spread_evenly(demands, held, 32)
    copies = Counter(name for part in parts.values() for name in part)
    rates = {one.name: one.rate / max(1, copies[one.name]) for one in demands}
    work = [sum(rates[name] for name in part) for part in parts.values()]
    # The bound of places comes first: the last ones go where there are some.
    assert max(work) < 1.1 * OVER_MEAN * sum(one.rate for one in demands) / 4
    assert min(work) > 0.5 * max(work)


def test_a_new_replica_takes_its_part_and_nothing_else_moves() -> None:
    demands = [Demand(f"adapter-{number}") for number in range(90)]
    before = spread_evenly(demands, {f"replica-{number}": () for number in range(3)}, 64)
    after = spread_evenly(demands, {f"replica-{number}": () for number in range(4)}, 64)
    moved = [name for replica, part in after.items() if replica in before for name in set(part) - set(before[replica])]
    assert len(moved) < 20, "of 90, only some of those that its bound pushes on"
    assert len(after["replica-3"]) > 10


def test_the_most_important_come_first_where_not_all_fit() -> None:
    demands = [Demand(f"adapter-{number}") for number in range(20)]
    parts = spread_evenly(demands, {"a": (), "b": ()}, 3)
    assert {name for part in parts.values() for name in part} == {f"adapter-{number}" for number in range(6)}


@given(DEMANDS, st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_each_replica_has_its_own_room(demands: list[Demand], rooms: list[int]) -> None:
    room = {f"replica-{number}": places for number, places in enumerate(rooms)}
    parts = spread(demands, {replica: () for replica in room}, room)
    assert all(len(parts[replica]) <= room[replica] for replica in room)


def test_a_larger_replica_takes_a_larger_part() -> None:
    demands = [Demand(f"adapter-{number}") for number in range(120)]
    parts = spread(demands, {"small": (), "large": ()}, {"small": 32, "large": 96})
    assert 24 <= len(parts["small"]) <= 32
    assert len(parts["small"]) + len(parts["large"]) == 120, "what fits somewhere is somewhere"


@given(st.integers(2, 4), st.integers(1, 5), st.lists(st.integers(0, 3), max_size=12), st.integers(0, 5), st.randoms())
def test_a_place_that_is_free_is_found(replicas: int, room: int, where: list[int], unheld: int, random: Random) -> None:
    """However those that are there came to lie, and although nothing is pushed out for those that are not."""
    held: dict[str, list[str]] = {f"replica-{number}": [] for number in range(replicas)}
    count = min(len(where) + unheld, replicas * room)
    demands = [Demand(f"adapter-{number}-{random.getrandbits(32)}") for number in range(count)]
    for demand, number in zip(demands, where, strict=False):
        if len(holder := held[f"replica-{number % replicas}"]) < room:
            holder.append(demand.name)
    random.shuffle(demands)
    for _ in range(3):
        for replica, names in spread_evenly(demands, held, room).items():
            missing = [name for name in names if name not in held[replica]]
            held[replica] += missing[: room - len(held[replica])]
    assert {name for names in held.values() for name in names} == {demand.name for demand in demands}
