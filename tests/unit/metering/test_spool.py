"""The spool on a real disk: what it kept, it gives back, whoever died in between."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tokenyard.metering import spool as module
from tokenyard.metering.spool import Spool


class Item(msgspec.Struct, frozen=True):
    number: int
    text: str = "a text that makes the line a little longer"


WRITER = """
import asyncio, sys
from pathlib import Path
import msgspec
from tokenyard.metering.spool import Spool

class Item(msgspec.Struct, frozen=True):
    number: int

async def main():
    spool = Spool(Path(sys.argv[1]), Item)
    for number in range(3):
        await spool.append([Item(number)])
    print("kept", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""

SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
import msgspec
from tokenyard.metering.spool import Spool

class Item(msgspec.Struct, frozen=True):
    number: int

async def send(items):
    print(*(item.number for item in items), flush=True)

async def main():
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    spool = Spool(Path(sys.argv[1]), Item)
    await spool.append([Item(number) for number in range(20)])
    assert spool.full
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await spool.flush()
    assert not spool.full
    await spool.replay(send)

asyncio.run(main())
"""


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


class Sent:
    """Takes items, or refuses them."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.broken = False

    async def __call__(self, items: Sequence[Item]) -> None:
        if self.broken:
            raise ConnectionError
        self.numbers += [item.number for item in items]


@pytest.fixture
def sent() -> Sent:
    return Sent()


async def test_what_is_kept_is_replayed_once(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path / "spool", Item)
    await asyncio.gather(*(spool.append([Item(number)]) for number in range(100)))
    await spool.replay(sent)
    await spool.replay(sent)
    assert sent.numbers == list(range(100))
    assert files(tmp_path / "spool", "*") == []


async def test_a_failed_replay_is_done_again(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path, Item)
    await spool.append([Item(1)])
    sent.broken = True
    with pytest.raises(ConnectionError):
        await spool.replay(sent)
    await spool.append([Item(2)])
    sent.broken = False
    await spool.replay(sent)
    assert sent.numbers == [1, 2]


async def test_another_process_takes_over_what_a_killed_one_kept(tmp_path: Path, sent: Sent) -> None:
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, tmp_path, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"kept\n"
    spool = Spool(tmp_path, Item)
    await spool.replay(sent)
    assert sent.numbers == []  # its owner lives

    writer.kill()
    await writer.wait()
    await spool.replay(sent)
    assert sent.numbers == [0, 1, 2]


async def test_a_torn_last_line_is_dropped_and_a_damaged_one_kept_aside(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path, Item)
    for number in range(3):
        await spool.append([Item(number)])
    await spool.close()
    (path,) = files(tmp_path, "*.jsonl")
    first, second, third, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, second[:10], third, third[:10]]))
    await spool.replay(sent)
    assert sent.numbers == [0, 2]
    assert files(tmp_path, "*.jsonl") == []
    assert len(files(tmp_path, "*.damaged")) == 1


async def test_at_its_cap_it_says_so_until_it_is_replayed(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path, Item, max_bytes=50)
    assert not spool.full
    await spool.append([Item(1)])
    assert spool.full
    await spool.append([Item(2)])
    await spool.replay(sent)
    assert not spool.full
    assert sent.numbers == [1, 2]


async def test_a_disk_that_fails_loses_nothing(tmp_path: Path, sent: Sent) -> None:
    folder = tmp_path / "spool"
    folder.write_text("a file where the folder should be")
    spool = Spool(folder, Item)
    await spool.append([Item(1)])
    assert spool.full
    folder.unlink()
    await spool.flush()
    assert not spool.full
    await spool.replay(sent)
    assert sent.numbers == [1]


async def test_what_a_broken_disk_never_took_is_sent_from_memory(tmp_path: Path, sent: Sent) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    spool = Spool(tmp_path / "spool", Item)
    await spool.append([Item(1)])
    sent.broken = True
    with pytest.raises(ConnectionError):
        await spool.replay(sent)
    assert spool.full
    sent.broken = False
    await spool.replay(sent)
    assert sent.numbers == [1]
    assert not spool.full


def test_a_disk_that_takes_only_a_part_has_taken_nothing(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert {int(number) for number in ran.stdout.split()} == set(range(20))


async def test_what_a_former_process_left_counts_to_the_cap(tmp_path: Path, sent: Sent) -> None:
    former = Spool(tmp_path, Item)
    await former.append([Item(1)])
    await former.close()
    spool = Spool(tmp_path, Item, max_bytes=50)
    sent.broken = True
    with pytest.raises(ConnectionError):
        await spool.replay(sent)
    assert spool.full


async def test_a_long_outage_makes_many_files_and_a_replay_takes_them_oldest_first(
    tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    spool = Spool(tmp_path, Item)
    for number in range(0, 20, 2):
        await spool.append([Item(number), Item(number + 1)])
    assert len(files(tmp_path, "*.jsonl")) == 10
    await spool.replay(sent, go_on=lambda: not sent.numbers)
    assert sent.numbers == [0, 1]
    await spool.replay(sent)
    assert sent.numbers == list(range(20))


async def test_a_write_that_is_left_midway_is_neither_lost_nor_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Outbox.close` cancels its background task, which may be writing just then."""
    writing, go_on = threading.Event(), threading.Event()
    sync = os.fsync

    def slow_sync(file: int) -> None:
        writing.set()
        go_on.wait(5)
        sync(file)

    monkeypatch.setattr(os, "fsync", slow_sync)
    spool = Spool(tmp_path, Item)
    appending = asyncio.create_task(spool.append([Item(1)]))
    await asyncio.to_thread(writing.wait, 5)
    appending.cancel()
    await asyncio.wait([appending])
    closing = asyncio.create_task(spool.close())
    await asyncio.sleep(0.05)
    go_on.set()
    await closing
    sent: list[Item] = []

    async def send(items: Sequence[Item]) -> None:
        sent.extend(items)

    await Spool(tmp_path, Item).replay(send)
    assert sent == [Item(1)]
