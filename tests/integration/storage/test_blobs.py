"""The blob store on a local folder and on a real S3 server: the same promises."""

import asyncio
import contextlib
import os
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from support.servers.free_ports import free_port
from tokenyard.core.errors import Unavailable
from tokenyard.storage import blobs as module
from tokenyard.storage.blobs import BlobStore, InvalidPath


@pytest.fixture(params=["folder", "s3"])
def blob_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/blobs" if request.param == "folder" else request.getfixturevalue("s3_url")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken() -> AsyncIterator[bytes]:
    yield b"x" * 1000
    raise ConnectionError("the client left")


async def test_what_is_written_is_read(blob_url: str) -> None:
    blobs = BlobStore(blob_url)
    await blobs.write("files/org_a/file_1", b"hello")
    assert await blobs.read("files/org_a/file_1") == b"hello"
    assert await blobs.exists("files/org_a/file_1")
    assert blobs.url_of("files/org_a/file_1") == f"{blob_url}/files/org_a/file_1"


async def test_a_large_blob_goes_through_in_chunks(blob_url: str) -> None:
    blobs = BlobStore(blob_url)
    parts = [bytes([number]) * 1_000_000 for number in range(12)]  # more than one part of an S3 multipart upload
    assert await blobs.write_stream("files/org_a/large", chunks(*parts)) == 12_000_000
    assert b"".join([part async for part in blobs.read_stream("files/org_a/large")]) == b"".join(parts)


async def test_a_broken_upload_leaves_nothing(blob_url: str) -> None:
    blobs = BlobStore(blob_url)
    await blobs.write("files/org_a/other", b"")
    with pytest.raises(ConnectionError):
        await blobs.write_stream("files/org_a/broken", broken())
    assert not await blobs.exists("files/org_a/broken")
    assert await blobs.names("files/org_a") == ["other"]


async def test_another_process_sees_what_was_written_after_it_looked(blob_url: str) -> None:
    writer, reader = BlobStore(blob_url), BlobStore(blob_url)
    await writer.write("jobs/org_a/1/events/1.json", b"{}")
    assert await reader.names("jobs/org_a/1/events") == ["1.json"]
    assert not await reader.exists("jobs/org_a/1/events/2.json")
    await writer.write("jobs/org_a/1/events/2.json", b"{}")
    assert await reader.exists("jobs/org_a/1/events/2.json")
    assert await reader.names("jobs/org_a/1/events") == ["1.json", "2.json"]
    await writer.write("jobs/org_a/1/events/2.json", b"new")
    assert await reader.read("jobs/org_a/1/events/2.json") == b"new"


async def test_what_is_not_there(blob_url: str) -> None:
    blobs = BlobStore(blob_url)
    assert await blobs.names("files/org_a") == []
    assert not await blobs.exists("files/org_a/none")
    with pytest.raises(FileNotFoundError):
        await blobs.read("files/org_a/none")
    await blobs.delete("files/org_a/none")


async def test_a_folder_is_deleted_whole_and_its_neighbour_stays(blob_url: str) -> None:
    blobs = BlobStore(blob_url)
    for path in ("jobs/org_a/1/a", "jobs/org_a/1/b/c", "jobs/org_a/10/a"):
        await blobs.write(path, b"x")
    await blobs.delete("jobs/org_a/1")
    assert await blobs.names("jobs/org_a") == ["10"]


@pytest.mark.parametrize("path", ["../etc/passwd", "files/../../x", "/abs/x", "files", "a/./b", "a//b", "a/b?c"])
async def test_only_paths_of_ids_are_paths(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidPath):
        BlobStore(f"file://{tmp_path}").url_of(path)


async def test_a_store_that_is_away_is_said_to_be(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await BlobStore(s3_url).write("files/org_a/file_1", b"hello")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(Unavailable):
        await BlobStore(s3_url).read("files/org_a/file_1")


async def test_a_reader_sees_all_of_a_blob_or_none(blob_url: str) -> None:
    """Also while one is written over, by two at once."""
    blobs, whole = BlobStore(blob_url), [bytes([number]) * 3_000_000 for number in (1, 2, 3)]
    seen, done = set[bytes](), asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            if await blobs.exists("adapters/org_a/x/weights"):
                seen.add(await blobs.read("adapters/org_a/x/weights"))
            await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    parts = [[data[at : at + 500_000] for at in range(0, len(data), 500_000)] for data in whole]
    await blobs.write_stream("adapters/org_a/x/weights", chunks(*parts[0]))
    await asyncio.gather(*(blobs.write_stream("adapters/org_a/x/weights", chunks(*one)) for one in parts[1:]))
    seen.add(await blobs.read("adapters/org_a/x/weights"))
    done.set()
    await reading
    assert seen <= set(whole)
    assert await blobs.names("adapters/org_a/x") == ["weights"]


async def test_a_writer_that_is_killed_leaves_nothing_that_anybody_sees(blob_url: str) -> None:
    """Half of a file is on the disk, or in the store, under a name that is nobody's."""
    script = (
        "import asyncio, sys\n"
        "from tokenyard.storage.blobs import BlobStore\n"
        "async def chunks():\n"
        "    yield b'x' * 6_000_000\n"
        "    print('half', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(BlobStore(sys.argv[1]).write_stream('adapters/org_a/x/weights', chunks()))\n"
    )
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", script, blob_url, stdout=PIPE)
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"half\n"
    writer.kill()
    await writer.wait()
    blobs = BlobStore(blob_url)
    assert not await blobs.exists("adapters/org_a/x/weights")
    assert await blobs.names("adapters/org_a/x") == []
    await blobs.write("adapters/org_a/x/weights", b"whole")
    assert await blobs.read("adapters/org_a/x/weights") == b"whole"


async def test_a_store_that_hangs_is_given_up_and_takes_nobody_elses_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_LIMIT_S", 0.2)
    others = set(threading.enumerate())
    blobs, pipe = BlobStore(f"file://{tmp_path}/blobs"), tmp_path / "blobs" / "files" / "org_a" / "hung"
    await blobs.write("files/org_a/fine", b"hello")
    os.mkfifo(pipe)
    async with asyncio.timeout(5):
        hung = await asyncio.gather(*(blobs.read("files/org_a/hung") for _ in range(40)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in hung), hung
        assert await asyncio.to_thread(lambda: 7) == 7
    ours = [one for one in threading.enumerate() if one.name.startswith("blobs") and one not in others]
    assert len(ours) == module.CALLS_AT_ONCE
    while any(one.is_alive() for one in ours):  # let each come to its end
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        blobs._threads.shutdown(wait=False)
        await asyncio.sleep(0.01)
