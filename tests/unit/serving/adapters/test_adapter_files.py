"""A local copy of an adapter is the published one, to the byte, or there is none."""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.models import LoraSpec
from tokenyard.core.training import AdapterManifest, adapter_digest
from tokenyard_deployments.serving.adapters.downloads import Downloads, StoreHangs
from tokenyard_deployments.serving.adapters.files import AdapterFiles, AdapterRejected

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "bias": "none"}
PATH = "adapters/org_1/abc"


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def files(blobs: Path, tmp_path: Path) -> AdapterFiles:
    return AdapterFiles(f"file://{blobs}", tmp_path / "local", "tiny", LoraSpec(max_lora_rank=16))


def publish(
    blobs: Path, config: dict[str, Any] = CONFIG, model: str = "tiny", more: Mapping[str, bytes] | None = None
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
        files=hashes, digest=adapter_digest(hashes), base_model=model, rank=8, target_modules=("q_proj",)
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return AdapterRef(AdapterId("abc"), "ft:tiny:org:x:abc", PATH, manifest.digest)


def left_over(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "local").iterdir())


async def test_it_is_copied_once_and_dropped(files: AdapterFiles, blobs: Path, tmp_path: Path) -> None:
    adapter = publish(blobs)
    folder = await files.fetch(adapter)
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
    (blobs / PATH / "manifest.json").unlink()
    assert await files.fetch(adapter) == folder
    await files.delete(folder)
    assert left_over(tmp_path) == []


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 32}, "not 32"),
        ({"r": 0}, "not 0"),
        ({"peft_type": "IA3"}, "not a LoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "Only these layers"),
        ({"target_modules": "all-linear"}, "Only these layers"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
async def test_a_kind_of_adapter_that_cannot_be_served_is_refused(
    files: AdapterFiles, blobs: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterRejected, match=message):
        await files.fetch(publish(blobs, {**CONFIG, **change}))


async def test_an_adapter_of_another_base_is_refused(files: AdapterFiles, blobs: Path) -> None:
    with pytest.raises(AdapterRejected, match="trained for huge"):
        await files.fetch(publish(blobs, model="huge"))


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
    return AdapterFiles(
        f"file://{blobs}", tmp_path / "local", "tiny", LoraSpec(), downloads=Downloads(at_once=at_once, limit_s=0.2)
    )


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
    assert (await files.fetch(fine)).is_dir(), "another adapter is not held up by it"
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
    answers = await asyncio.gather(*(files.fetch(hung.publish(number)) for number in range(6)), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers), answers
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("download")]
    assert len(threads) == 2
    assert all(thread.daemon for thread in threads), "a process must be able to end"
    with pytest.raises(StoreHangs):
        await files.fetch(publish(blobs))
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
