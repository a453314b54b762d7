"""The local cache: one load for many, stale while the database is down, and never more than its size."""

import asyncio
from collections.abc import Callable

import pytest

from support.fakes.clock import FrozenClock
from support.gateway_stack import until
from tokenyard.core.errors import Unavailable
from tokenyard.storage.read_cache import MAX_LOADS, ReadCache


class Source:
    """Counts loads; may be down, and may be held open."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {"a": "A", "b": "B"}
        self.loads = 0
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: str, _previous: str | None) -> str | None:
        self.loads += 1
        value = self.values.get(key)
        await self.gate.wait()
        if self.down:
            raise ConnectionRefusedError
        return value


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(source: Source, clock: FrozenClock) -> ReadCache[str, str]:
    return ReadCache(source.load, fresh_s=30, stale_s=600, size=3, now=clock)


async def test_a_hundred_concurrent_misses_are_one_load(cache: ReadCache[str, str], source: Source) -> None:
    assert await asyncio.gather(*(cache.get("a") for _ in range(100))) == ["A"] * 100
    assert source.loads == 1


async def test_what_is_absent_is_remembered_too(cache: ReadCache[str, str], source: Source, clock: FrozenClock) -> None:
    assert await cache.get("x") is None
    assert await cache.get("x") is None
    assert source.loads == 1
    source.values["x"] = "X"
    assert await cache.get("x", fresh_s=0) == "X"


async def test_an_old_entry_is_served_while_it_is_loaded_again(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    await cache.get("a")
    source.values["a"] = "A2"
    clock.advance(29.9)
    assert await cache.get("a") == "A"
    assert source.loads == 1
    clock.advance(0.2)
    source.gate.clear()
    async with asyncio.timeout(5):
        assert [await cache.get("a") for _ in range(10)] == ["A"] * 10, "nobody waits for the database"
    await until(lambda: source.loads == 2)
    source.gate.set()
    await until(lambda: cache.peek("a") == "A2")
    assert source.loads == 2


async def test_who_sets_an_age_waits_rather_than_getting_an_older_entry(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    await cache.get("a")
    source.values["a"] = "A2"
    clock.advance(5)
    assert await cache.get("a", fresh_s=10) == "A"
    assert await cache.get("a", fresh_s=5) == "A2"


async def test_an_entry_of_ten_minutes_is_not_served(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    await cache.get("a")
    source.values["a"] = "A2"
    clock.advance(601)
    assert await cache.get("a") == "A2"


@pytest.mark.parametrize("outdated", [False, True])
async def test_what_is_known_is_served_while_too_many_loads_are_under_way(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock, outdated: bool
) -> None:
    await cache.get("a")
    clock.advance(31)
    source.gate.clear()
    flood = [asyncio.create_task(cache.get(f"unknown-{number}")) for number in range(MAX_LOADS)]
    await until(lambda: source.loads == MAX_LOADS + 1)
    if outdated:
        cache.outdate("a")
    async with asyncio.timeout(5):
        assert await cache.get("a") == "A"
        with pytest.raises(Unavailable):
            await cache.get("b")
    assert source.loads == MAX_LOADS + 1
    source.gate.set()
    await asyncio.gather(*flood)


async def test_while_the_database_hangs_only_one_load_a_second_is_tried(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    """Those who come while that one is under way do not wait for it."""
    await cache.get("a")
    cache.outdate("a")
    source.down = True
    assert await cache.get("a") == "A"
    clock.advance(1.1)
    source.gate.clear()
    probe = asyncio.create_task(cache.get("a"))
    await until(lambda: source.loads == 3)
    async with asyncio.timeout(5):
        assert await cache.get("a") == "A"
        with pytest.raises(Unavailable):
            await cache.get("b")
    assert source.loads == 3
    source.down = False
    source.gate.set()
    assert await probe == "A"
    assert await cache.get("b") == "B"


async def test_while_the_database_is_down_an_old_entry_is_served_for_ten_minutes(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    await cache.get("a")
    source.down = True
    clock.advance(599)
    assert await cache.get("a") == "A"
    clock.advance(2)
    with pytest.raises(Unavailable):
        await cache.get("a")


async def test_while_the_database_is_down_only_one_load_a_second_is_tried(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    await cache.get("a")
    source.down = True
    clock.advance(31)
    for _ in range(50):
        assert await cache.get("a") == "A"
    await until(lambda: source.loads == 2)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await cache.get("b")
    assert source.loads == 2
    source.down = False
    clock.advance(1.1)
    assert await cache.get("b") == "B"


async def test_a_caller_that_leaves_does_not_end_the_load_of_others(cache: ReadCache[str, str], source: Source) -> None:
    source.gate.clear()
    first, second = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert await second == "A"
    assert source.loads == 1


async def test_an_outdated_entry_is_loaded_again_and_no_other(cache: ReadCache[str, str], source: Source) -> None:
    for key in ("a", "b", "x", "y"):
        await cache.get(key)
    source.values |= {"a": "A2", "b": "B2", "x": "X", "y": "Y"}
    for key in ("a", "x", "never seen"):
        cache.outdate(key)
    assert cache.peek("a") is None
    assert [await cache.get(key) for key in ("a", "b", "x", "y")] == ["A2", "B", "X", None]
    assert [await cache.get(key) for key in ("a", "x")] == ["A2", "X"]
    assert source.loads == 6


async def test_entries_are_outdated_by_their_value_and_all_that_was_absent(
    cache: ReadCache[str, str], source: Source
) -> None:
    for key in ("a", "b", "x", "y"):
        await cache.get(key)
    source.values |= {"a": "A2", "b": "B2", "x": "A", "y": "Y"}
    cache.outdate_where(lambda value: value == "A")
    assert [await cache.get(key) for key in ("a", "b", "x", "y")] == ["A2", "B", "A", "Y"]


@pytest.mark.parametrize("outdate", [lambda cache: cache.outdate("a"), lambda cache: cache.outdate_where(bool)])
async def test_what_was_loaded_before_it_was_outdated_is_not_kept(
    cache: ReadCache[str, str], source: Source, outdate: Callable[[ReadCache[str, str]], None]
) -> None:
    source.gate.clear()
    early = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outdate(cache)
    source.values["a"] = "A2"
    source.gate.set()
    assert await early == "A"
    assert await cache.get("a") == "A2"


async def test_while_the_database_is_down_an_outdated_entry_serves_as_an_old_one_does(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    assert [await cache.get(key) for key in ("a", "x")] == ["A", None]
    source.down = True
    cache.outdate("a")
    cache.outdate_where(lambda _value: True)
    for _ in range(10):
        assert [await cache.get(key) for key in ("a", "x")] == ["A", None]
    assert source.loads == 3, "one try a second"
    source.down = False
    source.values["a"] = "A2"
    clock.advance(1.1)
    assert await cache.get("a") == "A2"
    source.down = True
    cache.outdate("a")
    clock.advance(599)
    assert await cache.get("a") == "A2"
    clock.advance(2)
    with pytest.raises(Unavailable):
        await cache.get("a")


async def test_the_latest_is_never_from_memory_and_never_costs_what_is_there(
    cache: ReadCache[str, str], source: Source, clock: FrozenClock
) -> None:
    assert await cache.get("a") == "A"
    source.values["a"] = "A2"
    assert await cache.latest("a") == "A2"
    assert await cache.get("a") == "A2"
    source.down = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await cache.latest("a")
    assert source.loads == 3, "one try a second"
    assert await cache.get("a") == "A2"
    with pytest.raises(Unavailable):
        await cache.latest("b")


async def test_the_latest_does_not_join_a_load_that_began_before(cache: ReadCache[str, str], source: Source) -> None:
    source.gate.clear()
    early = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.values["a"] = "A2"
    late = asyncio.create_task(cache.latest("a"))
    await asyncio.sleep(0)
    source.gate.set()
    assert (await early, await late, await cache.get("a")) == ("A", "A2", "A2")


async def test_a_flood_of_unknown_keys_does_not_push_out_known_ones(cache: ReadCache[str, str], source: Source) -> None:
    await cache.get("a")
    for number in range(100):
        await cache.get(f"unknown-{number}")
    source.down = True
    assert await cache.get("a") == "A"


async def test_an_error_that_is_not_the_database_s_is_not_hidden(clock: FrozenClock) -> None:
    async def broken(_key: str, _previous: str | None) -> str | None:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        await ReadCache(broken, fresh_s=30, now=clock).get("a")
