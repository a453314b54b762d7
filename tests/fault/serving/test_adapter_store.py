"""Adapters from a real S3 server that hangs, fails, lies or is away: who waits for one is told, nobody else notices."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from s3fs import S3FileSystem

from support.adapters.published_files import BASE_CONTENT, publish_files
from support.servers.faulty_proxy import FaultyProxy, faulty_proxy
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Unavailable
from tokenyard.core.training import ADAPTER_WEIGHTS
from tokenyard.storage.blobs import BlobStore
from tokenyard_deployments.serving.adapters.bounded_calls import BoundedCalls, StoreHangs
from tokenyard_deployments.serving.adapters.disk_cache import CacheFull, DiskCache
from tokenyard_deployments.serving.adapters.files import AdapterFiles, AdapterRejected
from tokenyard_deployments.serving.adapters.published import PublishedAdapters, StoreFails
from tokenyard_deployments.serving.adapters.residency import Residency

pytestmark = pytest.mark.timeout(120)
WEIGHTS = os.urandom(3 << 20)
LIMIT_S = 2.0


class Engine:
    """Takes whatever is whole."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def load_adapter(self, name: str, folder: Path) -> None:
        self.held[name] = (folder / ADAPTER_WEIGHTS).read_bytes()

    async def unload_adapter(self, name: str) -> None:
        del self.held[name]


@pytest.fixture
async def proxy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyProxy]:
    """All clients reach the S3 server through it."""
    port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
    assert port is not None
    async with faulty_proxy(partial(asyncio.open_connection, "127.0.0.1", port)) as (proxy, own):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{own}")
        S3FileSystem.clear_instance_cache()
        yield proxy


@pytest.fixture
def blobs(proxy: FaultyProxy, s3_url: str) -> BlobStore:
    return BlobStore(s3_url)


@pytest.fixture
def files(proxy: FaultyProxy, s3_url: str, tmp_path: Path) -> AdapterFiles:
    """A replica's, with room on the disk for three."""
    return replica_files(s3_url, tmp_path)


@pytest.fixture
def hasty(proxy: FaultyProxy, s3_url: str, tmp_path: Path) -> AdapterFiles:
    """One that gives up soon and has two threads for downloads."""
    return replica_files(s3_url, tmp_path, BoundedCalls("download", at_once=2, limit_s=LIMIT_S))


def replica_files(s3_url: str, tmp_path: Path, downloads: BoundedCalls | None = None) -> AdapterFiles:
    return AdapterFiles(
        PublishedAdapters(s3_url),
        DiskCache(tmp_path / "node", 3 * len(WEIGHTS) + 100_000),
        model="tiny",
        base_content_hash=BASE_CONTENT,
        downloads=downloads,
    )


def on_the_disk(tmp_path: Path) -> list[Path]:
    return [one for part in ("entries", "filling") for one in (tmp_path / "node" / part).iterdir()]


async def nothing_left(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        while on_the_disk(tmp_path):  # noqa: ASYNC110 - a thread that was given up tells nobody
            await asyncio.sleep(0.05)


async def test_it_comes_whole_from_a_real_s3_server(files: AdapterFiles, blobs: BlobStore) -> None:
    held = await files.fetch(await publish_files(blobs, "a", WEIGHTS))
    assert (held.folder / ADAPTER_WEIGHTS).read_bytes() == WEIGHTS
    held.release()


@pytest.mark.parametrize("cuts", [False, True], ids=["hangs", "cuts"])
async def test_a_store_that_stops_in_the_middle_harms_only_who_waits_for_it(
    hasty: AdapterFiles, blobs: BlobStore, proxy: FaultyProxy, cuts: bool
) -> None:
    known = await publish_files(blobs, "known", b"small")
    broken = await publish_files(blobs, "broken", WEIGHTS)
    residency = Residency(engine := Engine(), hasty, capacity=4)
    await residency.load(known)
    await residency.unload(known.name)
    proxy.left, proxy.cuts = 1_000_000, cuts
    waiting = asyncio.create_task(use(residency, broken))
    await asyncio.sleep(0.2)
    await use(residency, known)  # from the disk
    async with residency.using(None):
        pass
    assert cuts or not waiting.done(), "meanwhile it hangs"
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await waiting
    assert set(engine.held) == {known.name}
    proxy.left = None
    async with asyncio.timeout(60):
        while broken.name not in residency.names:
            try:
                await use(residency, broken)
            except Unavailable:  # its thread has not ended yet
                await asyncio.sleep(0.2)
    assert engine.held[broken.name] == WEIGHTS


async def use(residency: Residency, adapter: AdapterRef) -> None:
    async with residency.using(adapter):
        pass


async def test_a_store_that_hangs_takes_so_many_threads_and_no_more(
    hasty: AdapterFiles, blobs: BlobStore, proxy: FaultyProxy, tmp_path: Path
) -> None:
    adapters = [await publish_files(blobs, f"a{number}", WEIGHTS) for number in range(6)]
    proxy.left = 100_000
    answers = await asyncio.gather(*(hasty.fetch(one) for one in adapters), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers), answers
    assert sum(one.name.startswith("download") for one in threading.enumerate()) <= 2
    with pytest.raises(StoreHangs):
        await hasty.fetch(adapters[0])
    proxy.left, proxy.cuts = 0, True
    await proxy.close()
    await nothing_left(tmp_path)


async def test_however_many_wait_for_a_store_that_hangs_what_is_on_the_disk_is_served(
    s3_url: str, blobs: BlobStore, proxy: FaultyProxy, tmp_path: Path
) -> None:
    known = await publish_files(blobs, "known", b"small")
    (await replica_files(s3_url, tmp_path).fetch(known)).release()  # while the store is well, it may take its time
    files = replica_files(s3_url, tmp_path, BoundedCalls("download", limit_s=LIMIT_S))
    residency = Residency(Engine(), files, capacity=4)
    proxy.left = 0
    cold = [msgspec.structs.replace(known, name=f"cold-{n}", digest=f"{n:064x}") for n in range(200)]
    waiting = [asyncio.create_task(use(residency, one)) for one in cold for _ in range(3)]
    await asyncio.sleep(0.2)
    await use(residency, known)
    assert not all(one.done() for one in waiting), "some wait meanwhile"
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    proxy.cuts = True
    await proxy.close()


async def test_a_store_that_is_away_is_an_error_for_now_and_not_a_refusal(
    files: AdapterFiles, blobs: BlobStore, proxy: FaultyProxy, tmp_path: Path
) -> None:
    adapter = await publish_files(blobs, "a", WEIGHTS)
    proxy.left, proxy.cuts = 0, True
    await proxy.close()
    async with asyncio.timeout(30):
        with pytest.raises((StoreFails, TimeoutError, StoreHangs)):
            await files.fetch(adapter)
    await nothing_left(tmp_path)


async def test_one_whose_hash_is_wrong_is_refused_and_not_downloaded_for_each_request(
    files: AdapterFiles, blobs: BlobStore, tmp_path: Path, proxy: FaultyProxy
) -> None:
    adapter = await publish_files(blobs, "a", WEIGHTS)
    await blobs.write(f"{adapter.path}/{ADAPTER_WEIGHTS}", WEIGHTS[:-1] + b"\0")
    residency = Residency(Engine(), files, capacity=4)
    with pytest.raises(AdapterRejected, match="not what its manifest says"):
        await use(residency, adapter)
    assert on_the_disk(tmp_path) == []
    proxy.left = 0  # whoever asks the store now hangs
    for _ in range(50):
        with pytest.raises(AdapterRejected):
            await use(residency, adapter)


async def test_a_full_disk_throws_out_what_nobody_uses_and_then_refuses(
    files: AdapterFiles, blobs: BlobStore, tmp_path: Path
) -> None:
    adapters = [await publish_files(blobs, f"a{number}", WEIGHTS[number:]) for number in range(6)]
    for adapter in adapters:
        (await files.fetch(adapter)).release()
    assert len(on_the_disk(tmp_path)) == 3
    held = [await files.fetch(adapter) for adapter in adapters[:3]]
    with pytest.raises(CacheFull):
        await files.fetch(adapters[3])
    for one in held:
        one.release()
    (await files.fetch(adapters[3])).release()


async def test_an_adapter_that_is_being_published_is_not_there_yet(files: AdapterFiles, blobs: BlobStore) -> None:
    """The manifest comes last: without it there is no adapter, however much of it there is."""
    adapter = await publish_files(blobs, "a", WEIGHTS)
    await blobs.delete(f"{adapter.path}/manifest.json")
    with pytest.raises(AdapterRejected, match="there is no"):
        await files.fetch(adapter)


@pytest.fixture(autouse=True)
def _s3_clients_end(proxy: FaultyProxy) -> Iterator[None]:
    yield
    S3FileSystem.clear_instance_cache()
