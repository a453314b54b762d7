"""Replicas of a node share its disk: one fills an entry for all, and one that is killed leaves nothing that is used."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.adapters import disk_filler
from support.adapters.disk_filler import SIZE
from tokenyard_deployments.serving.adapters.disk_cache import CacheFull, DiskCache

pytestmark = pytest.mark.timeout(60)
WHOLE = b"x" * SIZE
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts replicas' processes, each of which fills one entry."""
    started: list[subprocess.Popen[str]] = []

    def begin(key: str) -> "subprocess.Popen[str]":
        command = [sys.executable, disk_filler.__file__, str(tmp_path), key]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def hears(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def entry(folder: Path, key: str = "a") -> Path:
    return folder / "entries" / key / "weights"


def fill(cache: DiskCache, key: str) -> None:
    cache.fill(key, SIZE, _write, lambda: None).release()


def _write(folder: Path) -> None:
    (folder / "weights").write_bytes(WHOLE)


def test_two_that_want_one_entry_fill_it_once(start: Start, tmp_path: Path) -> None:
    first = start("a")
    assert hears(first) == "half"
    second = start("a")
    third = start("b")  # another entry does not wait
    assert hears(third) == "half"
    assert DiskCache(tmp_path, 3 * SIZE).hold("a") is None, "half of it is none"
    assert second.poll() is None
    go_on(first)
    assert hears(first) == "filled"
    assert hears(second) == "found"
    assert entry(tmp_path).read_bytes() == WHOLE


def test_one_that_is_killed_in_the_middle_leaves_its_work_to_the_next(start: Start, tmp_path: Path) -> None:
    first = start("a")
    assert hears(first) == "half"
    waiting = start("a")
    first.kill()
    assert hears(waiting) == "half", "who waited for it takes over"
    waiting.kill()
    waiting.wait()
    cache = DiskCache(tmp_path, 3 * SIZE)
    assert cache.hold("a") is None
    fill(cache, "b")
    assert list((tmp_path / "filling").iterdir()) == [], "what the dead left was cleaned up"
    fill(cache, "a")
    assert entry(tmp_path).read_bytes() == WHOLE


def test_what_another_process_uses_is_not_deleted_until_it_ends(start: Start, tmp_path: Path) -> None:
    users = [start(key) for key in "abc"]
    for user in users:
        hears(user)
        go_on(user)
        assert hears(user) == "filled"
    cache = DiskCache(tmp_path, 3 * SIZE)
    with pytest.raises(CacheFull):
        fill(cache, "d")
    users[0].kill()
    users[0].wait()
    fill(cache, "d")
    assert {one.name for one in (tmp_path / "entries").iterdir()} == {"b", "c", "d"}


def test_room_that_another_fills_is_taken(start: Start, tmp_path: Path) -> None:
    filling = [start(key) for key in "ab"]
    for one in filling:
        assert hears(one) == "half"
    cache = DiskCache(tmp_path, 3 * SIZE)
    fill(cache, "c")
    fill(cache, "d")  # "c" went for it
    assert {one.name for one in (tmp_path / "entries").iterdir()} == {"d"}
    for one in filling:
        go_on(one)
        assert hears(one) == "filled"
