"""A local copy of an adapter is the published one, to the byte, or there is none."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.models import LoraSpec
from tokenyard.core.training import AdapterManifest, adapter_digest
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
