"""A local copy of an adapter is the published one, to the byte, or there is none."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.training import AdapterManifest, adapter_digest
from tokenyard_deployments.serving.adapters.bounded_calls import BoundedCalls, StoreHangs
from tokenyard_deployments.serving.adapters.disk_cache import DiskCache
from tokenyard_deployments.serving.adapters.files import AdapterFiles, AdapterRejected
from tokenyard_deployments.serving.adapters.metrics import ResidencyMetrics
from tokenyard_deployments.serving.adapters.published import PublishedAdapters
from tokenyard_deployments.serving.adapters.residency import Residency

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "bias": "none"}
PATH = "adapters/org_1/abc"
BASE = "b" * 64


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def files(blobs: Path, tmp_path: Path) -> AdapterFiles:
    return adapter_files(blobs, tmp_path)


def adapter_files(blobs: Path, tmp_path: Path, base: str = BASE, **more: BoundedCalls) -> AdapterFiles:
    cache = DiskCache(tmp_path / "local", 1 << 20)
    return AdapterFiles(PublishedAdapters(f"file://{blobs}"), cache, model="tiny", base_content_hash=base, **more)


def publish(
    blobs: Path,
    config: dict[str, Any] = CONFIG,
    model: str = "tiny",
    more: Mapping[str, bytes] | None = None,
    base: str | None = BASE,
) -> AdapterRef:
    folder = blobs / PATH
    folder.mkdir(parents=True)
    content = {
        "adapter_model.safetensors": b"weights",
        "adapter_config.json": json.dumps(config).encode(),
        **(more or {}),
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = AdapterManifest(
        files=hashes,
        digest=adapter_digest(hashes),
        base_model=model,
        rank=8,
        target_modules=("q_proj",),
        base_content_hash=base,
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return AdapterRef(AdapterId("abc"), "ft:tiny:org:x:abc", PATH, manifest.digest)


def left_over(tmp_path: Path) -> list[Path]:
    return [entry for part in ("entries", "filling") for entry in (tmp_path / "local" / part).iterdir()]


async def test_it_is_downloaded_once_and_stays_on_the_disk(files: AdapterFiles, blobs: Path, tmp_path: Path) -> None:
    adapter = publish(blobs)
    held = await files.fetch(adapter)
    assert (held.folder / "adapter_model.safetensors").read_bytes() == b"weights"
    held.release()
    shutil.rmtree(blobs)
    (await files.fetch(adapter)).release()
    (await adapter_files(blobs, tmp_path).fetch(adapter)).release()  # another replica of the node
    assert (files.downloaded, files.on_disk) == (1, 1)
    assert len(left_over(tmp_path)) == 1


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
async def test_a_copy_that_was_damaged_on_the_disk_is_fetched_anew(
    files: AdapterFiles, blobs: Path, name: str, damage: str
) -> None:
    adapter = publish(blobs)
    held = await files.fetch(adapter)
    file = held.folder / name
    held.release()
    whole = file.read_bytes()
    file.unlink()
    if damage == "changed":
        file.write_bytes(b"{}")
    held = await files.fetch(adapter)
    assert (held.folder / name).read_bytes() == whole
    assert files.downloaded == 2
    held.release()


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "adapter_config.json"])
async def test_what_is_missing_is_named(files: AdapterFiles, blobs: Path, tmp_path: Path, name: str) -> None:
    adapter = publish(blobs)
    (blobs / PATH / name).unlink()
    with pytest.raises(AdapterRejected):
        await files.fetch(adapter)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
async def test_a_changed_file_is_refused(files: AdapterFiles, blobs: Path, tmp_path: Path, name: str) -> None:
    adapter = publish(blobs)
    (blobs / PATH / name).write_bytes(b"{}")
    with pytest.raises(AdapterRejected, match="not what its manifest says"):
        await files.fetch(adapter)
    assert left_over(tmp_path) == []


async def test_a_changed_manifest_is_refused(files: AdapterFiles, blobs: Path) -> None:
    adapter = publish(blobs)
    manifest = json.loads((blobs / PATH / "manifest.json").read_bytes())
    manifest["files"]["adapter_model.safetensors"] = "0" * 64
    (blobs / PATH / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AdapterRejected, match="digest"):
        await files.fetch(adapter)


async def test_an_adapter_of_another_base_is_refused(files: AdapterFiles, blobs: Path) -> None:
    """The name says nothing: a base may be pulled anew under it."""
    with pytest.raises(AdapterRejected, match="another base"):
        await files.fetch(publish(blobs, base="c" * 64))


async def test_the_name_of_the_base_may_be_another(files: AdapterFiles, blobs: Path) -> None:
    (await files.fetch(publish(blobs, model="tiny-of-yore"))).release()


async def test_an_adapter_that_says_nothing_of_its_bases_content_goes_by_its_name(
    files: AdapterFiles, blobs: Path
) -> None:
    adapter = publish(blobs, base=None)
    (await files.fetch(adapter)).release()
    shutil.rmtree(blobs)
    with pytest.raises(AdapterRejected, match="trained for huge"):
        await files.fetch(publish(blobs, model="huge", config={**CONFIG, "r": 4}, base=None))


async def test_what_one_base_has_on_the_disk_is_not_anothers(files: AdapterFiles, blobs: Path, tmp_path: Path) -> None:
    adapter = publish(blobs)
    (await files.fetch(adapter)).release()
    other = adapter_files(blobs, tmp_path, base="c" * 64)
    with pytest.raises(AdapterRejected, match="another base"):
        await other.fetch(adapter)
    shutil.rmtree(blobs / PATH)
    publish(blobs, base="c" * 64)  # the very same files
    (await other.fetch(adapter)).release()


async def test_only_the_two_files_are_taken(files: AdapterFiles, blobs: Path) -> None:
    with pytest.raises(AdapterRejected, match="only"):
        await files.fetch(publish(blobs, more={"extra.bin": b"x"}))


@pytest.mark.parametrize("path", ["../secret/x", "adapters/../../etc", "/etc/passwd", "adapters//x", "x", "a/.hidden"])
async def test_a_path_that_is_not_made_of_ids_is_refused(files: AdapterFiles, path: str) -> None:
    with pytest.raises(AdapterRejected, match="malformed"):
        await files.fetch(AdapterRef(AdapterId("a"), "ft:x", path, "0" * 64))


class HungStore:
    """Stores whose manifest cannot be read to its end: a pipe to which nobody writes."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = blobs
        self._pipes: list[Path] = []

    def publish(self, number: int) -> AdapterRef:
        folder = self._blobs / "adapters" / "org_1" / f"hung{number}"
        folder.mkdir(parents=True)
        os.mkfifo(folder / "manifest.json")
        self._pipes.append(folder / "manifest.json")
        return AdapterRef(
            AdapterId(f"hung{number}"), f"ft:tiny:org:x:{number}", f"adapters/org_1/{folder.name}", "0" * 64
        )

    def recover(self) -> None:
        """Let every reader come to an end."""
        while self._pipes:
            pipe = self._pipes.pop()
            with contextlib.suppress(OSError):  # nobody reads it
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                pipe.unlink()
                pipe.touch()
                os.close(writer)


@pytest.fixture
def hung(blobs: Path) -> Iterator[HungStore]:
    store = HungStore(blobs)
    yield store
    store.recover()


def hasty(blobs: Path, tmp_path: Path, *, at_once: int = 2) -> AdapterFiles:
    return adapter_files(blobs, tmp_path, downloads=BoundedCalls("download", at_once=at_once, limit_s=0.2))


async def test_a_store_that_hangs_is_given_up_and_then_refused_at_once(
    hung: HungStore, blobs: Path, tmp_path: Path
) -> None:
    files = hasty(blobs, tmp_path)
    stuck, fine = hung.publish(1), publish(blobs)
    with pytest.raises(TimeoutError):
        await files.fetch(stuck)
    for _ in range(20):
        with pytest.raises(StoreHangs):
            await files.fetch(stuck)
    (await files.fetch(fine)).release()  # another adapter is not held up by it
    hung.recover()
    async with asyncio.timeout(5):
        while True:
            try:
                await files.fetch(stuck)
            except StoreHangs:
                await asyncio.sleep(0.01)
            except AdapterRejected:  # an empty manifest: it was read
                return


async def test_where_everything_hangs_others_are_refused_not_kept(hung: HungStore, blobs: Path, tmp_path: Path) -> None:
    files = hasty(blobs, tmp_path, at_once=2)
    known = publish(blobs)
    (await files.fetch(known)).release()
    answers = await asyncio.gather(*(files.fetch(hung.publish(number)) for number in range(6)), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers), answers
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("download")]
    assert len(threads) == 2
    assert all(thread.daemon for thread in threads), "a process must be able to end"
    with pytest.raises(StoreHangs):
        await files.fetch(msgspec.structs.replace(known, name="ft:tiny:org:x:new", digest="1" * 64))
    (await files.fetch(known)).release()  # what is on the disk needs no store
    assert await asyncio.to_thread(lambda: 7) == 7, "what else needs a thread has one"


async def test_a_download_that_was_given_up_leaves_nothing(hung: HungStore, blobs: Path, tmp_path: Path) -> None:
    files = hasty(blobs, tmp_path)
    adapter = publish(blobs)
    weights = blobs / PATH / "adapter_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(TimeoutError):
        await files.fetch(adapter)
    with weights.open("wb") as late:
        late.write(b"weights")
    async with asyncio.timeout(5):
        while left_over(tmp_path):  # noqa: ASYNC110 - its thread tells nobody
            await asyncio.sleep(0.01)


async def test_metrics_tell_where_adapters_were_found(files: AdapterFiles, blobs: Path, tmp_path: Path) -> None:
    adapter = publish(blobs)
    cache = DiskCache(tmp_path / "local", 1 << 20)
    residency = Residency(Engine(), files, capacity=4)
    registry = CollectorRegistry()
    ResidencyMetrics(residency, files, cache).show_in(registry)
    for _ in range(3):
        async with residency.using(adapter):
            assert registry.get_sample_value("tokenyard_adapters_in_use") == 1
    await residency.unload(adapter.name)
    await residency.load(adapter)
    with pytest.raises(AdapterRejected):
        await residency.load(msgspec.structs.replace(adapter, name="gone", path="adapters/org_1/gone", digest="0" * 64))
    places = {
        place: registry.get_sample_value("tokenyard_adapter_lookups_total", {"place": place})
        for place in ("memory", "disk", "store")
    }
    assert places == {"memory": 2, "disk": 1, "store": 1}
    figures = {
        name: registry.get_sample_value(f"tokenyard_adapter{name}")
        for name in ("s_places", "s_resident", "s_in_use", "_loads_total", "_evictions_total", "_load_failures_total")
    }
    assert list(figures.values()) == [4, 1, 0, 2, 1, 1]
    exposed = generate_latest(registry).decode()
    assert "org" not in exposed, "no tenant is a label"


class Engine:
    async def load_adapter(self, name: str, folder: Path) -> None:
        return

    async def unload_adapter(self, name: str) -> None:
        return
