"""The spool on a real disk: what it kept, it gives back, whoever died in between."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.limits.spool import Settlement, Spool

WRITER = """
import asyncio, sys, time
from pathlib import Path
from tokenyard.limits.spool import Settlement, Spool

async def main():
    spool = Spool(Path(sys.argv[1]))
    for number in range(3):
        await spool.append(Settlement("org_test", f"req_{number}", number, 7, b'{"a":1}', "wallet:org_test"))
    print("kept", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def settlement(number: int) -> Settlement:
    return Settlement(
        OrganizationId("org_test"), f"req_{number}", NanoDollars(number), 7, b'{"a":1}', "wallet:org_test"
    )


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


class Sent:
    """Takes settlements, or refuses them."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.broken = False

    async def __call__(self, settlements: Sequence[Settlement]) -> None:
        if self.broken:
            raise ConnectionError
        self.keys += [one.key for one in settlements]


@pytest.fixture
def sent() -> Sent:
    return Sent()


async def test_what_is_kept_is_replayed_once(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path / "spool")
    await asyncio.gather(*(spool.append(settlement(number)) for number in range(100)))
    await spool.replay(sent)
    await spool.replay(sent)
    assert sorted(sent.keys) == sorted(f"req_{number}" for number in range(100))
    assert files(tmp_path / "spool", "*.jsonl") == []


async def test_a_failed_replay_is_done_again(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path)
    await spool.append(settlement(1))
    sent.broken = True
    with pytest.raises(ConnectionError):
        await spool.replay(sent)
    await spool.append(settlement(2))
    sent.broken = False
    await spool.replay(sent)
    assert sorted(sent.keys) == ["req_1", "req_2"]


async def test_another_process_takes_over_what_a_killed_one_kept(tmp_path: Path, sent: Sent) -> None:
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, tmp_path, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"kept\n"
    spool = Spool(tmp_path)
    await spool.replay(sent)
    assert sent.keys == []  # its owner lives

    writer.kill()
    await writer.wait()
    await spool.replay(sent)
    assert sent.keys == ["req_0", "req_1", "req_2"]


async def test_a_torn_last_line_is_dropped_and_a_damaged_one_kept_aside(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        await spool.append(settlement(number))
    await spool.close()
    (path,) = files(tmp_path, "*.jsonl")
    first, second, third, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, second[:10], third, third[:10]]))
    await spool.replay(sent)
    assert sent.keys == ["req_0", "req_2"]
    assert files(tmp_path, "*.jsonl") == []
    assert len(files(tmp_path, "*.damaged")) == 1


async def test_at_its_cap_it_says_so_until_it_is_replayed(tmp_path: Path, sent: Sent) -> None:
    spool = Spool(tmp_path, max_bytes=100)
    assert not spool.full
    await spool.append(settlement(1))
    assert spool.full
    await spool.append(settlement(2))
    await spool.replay(sent)
    assert not spool.full
    assert sent.keys == ["req_1", "req_2"]


async def test_a_disk_that_fails_loses_nothing(tmp_path: Path, sent: Sent) -> None:
    folder = tmp_path / "spool"
    folder.write_text("a file where the folder should be")
    spool = Spool(folder)
    await spool.append(settlement(1))
    assert spool.full
    folder.unlink()
    await spool.flush()
    assert not spool.full
    await spool.replay(sent)
    assert sent.keys == ["req_1"]


async def test_what_a_former_process_left_counts_to_the_cap(tmp_path: Path, sent: Sent) -> None:
    former = Spool(tmp_path)
    await former.append(settlement(1))
    await former.close()
    spool = Spool(tmp_path, max_bytes=100)
    sent.broken = True
    with pytest.raises(ConnectionError):
        await spool.replay(sent)
    assert spool.full
