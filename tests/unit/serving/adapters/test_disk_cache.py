"""The disk of a node holds so many bytes of adapters, never deletes what is used, and never gives out half of one."""

import os
import threading
import time
from pathlib import Path

import pytest

from tokenyard_deployments.serving.adapters import disk_cache as module
from tokenyard_deployments.serving.adapters.disk_cache import UNUSED_S, CacheFull, DiskCache, HeldEntry


class Clock:
    def __init__(self) -> None:
        self.s = 1_700_000_000.0

    def __call__(self) -> float:
        self.s += 1
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> DiskCache:
    """It holds three entries."""
    return DiskCache(tmp_path, 300, clock)


def fill(cache: DiskCache, key: str, size: int = 100) -> HeldEntry:
    return cache.fill(key, size, lambda folder: _write(folder, size), lambda: None)


def _write(folder: Path, size: int) -> None:
    (folder / "weights").write_bytes(b"x" * size)


def keep(cache: DiskCache, *keys: str) -> None:
    for key in keys:
        fill(cache, key).release()


def there(folder: Path) -> set[str]:
    return {entry.name for entry in (folder / "entries").iterdir()}


def unfinished(folder: Path) -> list[Path]:
    return list((folder / "filling").iterdir())


def test_the_least_recently_used_makes_room(cache: DiskCache, tmp_path: Path) -> None:
    keep(cache, "a", "b", "c")
    found = cache.hold("a")
    assert found is not None
    assert (found.folder / "weights").read_bytes() == b"x" * 100
    found.release()
    keep(cache, "d")
    assert there(tmp_path) == {"a", "c", "d"}
    assert cache.hold("b") is None
    assert (cache.bytes, cache.evictions) == (300, 1)


def test_what_is_held_stays_whoever_holds_it(cache: DiskCache, tmp_path: Path, clock: Clock) -> None:
    keep(cache, "a", "b", "c")
    other = DiskCache(tmp_path, 300, clock)
    held = [cache.hold("a"), other.hold("a"), other.hold("b")]
    keep(cache, "d", "e")
    assert there(tmp_path) == {"a", "b", "e"}
    for one in held[:1]:
        assert one is not None
        one.release()
        one.release()
    keep(cache, "f")
    assert "a" in there(tmp_path), "the other replica uses it"


def test_where_all_is_held_there_is_no_room_and_nothing_is_left(cache: DiskCache, tmp_path: Path) -> None:
    held = [fill(cache, key) for key in ("a", "b", "c")]
    with pytest.raises(CacheFull):
        fill(cache, "d")
    assert unfinished(tmp_path) == []
    held[0].release()
    keep(cache, "d")
    assert there(tmp_path) == {"b", "c", "d"}
    for one in held:
        one.release()


def test_one_that_alone_is_too_large_throws_nothing_out_for_nothing(cache: DiskCache, tmp_path: Path) -> None:
    keep(cache, "a", "b")
    with pytest.raises(CacheFull):
        fill(cache, "huge", 301)
    assert there(tmp_path) == {"a", "b"}


def test_what_is_being_filled_counts_whole(cache: DiskCache, tmp_path: Path) -> None:
    keep(cache, "a")

    def write(folder: Path) -> None:
        keep(cache, "b", "c")  # 200 are taken by the one under way
        assert there(tmp_path) == {"c"}
        _write(folder, 200)

    cache.fill("slow", 200, write, lambda: None).release()
    assert there(tmp_path) == {"c", "slow"}


def test_a_filling_that_fails_leaves_nothing(cache: DiskCache, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        _write(folder, 50)
        raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError):
        cache.fill("a", 100, write, lambda: None)
    assert (there(tmp_path), unfinished(tmp_path)) == (set(), [])
    keep(cache, "a")


def test_one_that_nobody_waits_for_any_more_is_given_up(cache: DiskCache, tmp_path: Path) -> None:
    given_up = False

    def check() -> None:
        if given_up:
            raise TimeoutError

    def write(folder: Path) -> None:
        nonlocal given_up
        _write(folder, 100)
        given_up = True

    with pytest.raises(TimeoutError):
        cache.fill("a", 100, write, check)
    assert (there(tmp_path), unfinished(tmp_path)) == (set(), [])


def test_a_damaged_entry_goes_unless_another_uses_it(cache: DiskCache, tmp_path: Path, clock: Clock) -> None:
    held = fill(cache, "a")
    other = DiskCache(tmp_path, 300, clock).hold("a")
    assert other is not None
    with pytest.raises(BlockingIOError):
        cache.discard(held)
    assert there(tmp_path) == {"a"}
    cache.discard(other)
    assert there(tmp_path) == set()


def test_what_was_not_used_for_long_goes(cache: DiskCache, tmp_path: Path, clock: Clock) -> None:
    keep(cache, "a")
    clock.s += UNUSED_S
    keep(cache, "b")
    assert there(tmp_path) == {"b"}


def test_many_who_want_the_same_one_fill_it_once(tmp_path: Path) -> None:
    fillings, going = [], threading.Event()

    def write(folder: Path) -> None:
        fillings.append(folder)
        assert going.wait(5)
        _write(folder, 100)

    def want() -> None:
        DiskCache(tmp_path, 300).fill("a", 100, write, lambda: None).release()

    wanting = [threading.Thread(target=want) for _ in range(8)]
    for one in wanting:
        one.start()
    going.set()
    for one in wanting:
        one.join(5)
        assert not one.is_alive()
    assert len(fillings) == 1


def test_a_process_that_stands_still_while_it_decides_does_not_hold_others_for_ever(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_LIMIT_S", 0.05)
    with cache._alone(), pytest.raises(TimeoutError):
        cache.hold("a")


def test_what_processes_of_earlier_versions_left_goes_after_a_week(tmp_path: Path) -> None:
    for name, age in (("4711", UNUSED_S + 60), ("4712", 60), ("keep", UNUSED_S + 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"old")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    DiskCache(tmp_path, 1_000)
    assert {path.name for path in tmp_path.iterdir()} >= {"4712", "keep", "entries", "filling"}
    assert not (tmp_path / "4711").exists()
