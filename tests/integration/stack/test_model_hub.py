"""Pulling a model from the hub, with the hub's own client against a stand-in: pinned, checked, and gone on with."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from support.fakes.model_files import model_files, safetensors, write_model
from support.servers.model_hub import COMMIT, OLDER, TOKEN, ModelHub
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.model_files.sources import HuggingFaceSource
from tokenyard.settings import Settings
from tokenyard.stack.base_models import PulledModel, pull
from tokenyard.stack.installation import StackFailed
from tokenyard_deployments.base_models.content import content_hash

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
SHIPPED = "smollm2-135m-instruct"
PICKLED = {"pytorch_model.bin": b"pickled", "onnx/config.json": b"{}", "README.md": b"#"}


@pytest.fixture
async def hub() -> AsyncIterator[ModelHub]:
    hub = ModelHub({**model_files(WEIGHTS), **PICKLED}, older=model_files(b"older"))
    async with hub.running():
        yield hub


class Puller:
    """Pulls as `tokenyard models pull` does: by a process of its own."""

    def __init__(self, hub: ModelHub, folder: Path) -> None:
        self.steps: list[str] = []
        self.into = folder / "models" / "mine"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "home"),
        }

    async def __call__(self, what: str, *more: str, **environment: str) -> PulledModel:
        arguments = (what, "--into", str(self.into), *more)
        return await pull(arguments, {**self.environment, **environment}, self.steps.append)


@pytest.fixture
def puller(hub: ModelHub, tmp_path: Path) -> Puller:
    return Puller(hub, tmp_path)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }


async def test_a_model_comes_whole_without_what_is_not_needed_and_says_what_it_is(puller: Puller) -> None:
    done = await puller("owner/model")
    assert files_in(puller.into) == model_files(WEIGHTS)
    assert [path.name for path in puller.into.parent.iterdir()] == ["mine"], "nothing is left over"
    assert done.content_hash == content_hash(puller.into)
    assert done.content_hash == content_hash(write_model(puller.into.parent / "by hand", WEIGHTS))


async def test_a_branch_is_pinned_to_the_commit_that_came(puller: Puller, tmp_path: Path) -> None:
    await puller(f"owner/model@{OLDER}")
    assert files_in(puller.into) == model_files(b"older")
    puller.into = puller.into.with_name("newer")
    written = tmp_path / "written.yaml"
    done = await puller("owner/model", "--write-spec", str(written))
    spec = read_model_spec(written.read_bytes())
    assert spec.source == HuggingFaceSource("owner/model", COMMIT)
    assert spec.content_hash == done.content_hash


async def test_of_a_model_that_is_there_already_the_commit_must_be_said(puller: Puller, tmp_path: Path) -> None:
    written = tmp_path / "written.yaml"
    await puller("owner/model")
    with pytest.raises(StackFailed, match="does not say of which commit it is: pull owner/model@COMMIT"):
        await puller("owner/model", "--write-spec", str(written))
    assert not written.exists()
    await puller(f"owner/model@{COMMIT}", "--write-spec", str(written))
    assert read_model_spec(written.read_bytes()).source == HuggingFaceSource("owner/model", COMMIT)


async def test_a_broken_connection_goes_on_where_it_broke(hub: ModelHub, puller: Puller) -> None:
    """The client takes note every 10 MiB."""
    hub.commits[COMMIT] = model_files(WEIGHTS * 16)
    hub.cut_after["model.safetensors"] = 15 << 20
    await puller("owner/model")
    assert files_in(puller.into) == model_files(WEIGHTS * 16)
    asked = [asked for name, asked in hub.asked if name == "model.safetensors"]
    assert asked == [None, f"bytes={10 << 20}-"]


async def test_a_pull_that_broke_is_taken_up_again_with_what_had_come(hub: ModelHub, puller: Puller) -> None:
    hub.commits[COMMIT]["model-2.safetensors"] = safetensors({"c": b"second"})
    hub.refused.add("model-2.safetensors")
    with pytest.raises(StackFailed, match=r"cannot download 'owner/model'.*What has come is kept: pull again to go on"):
        await puller("owner/model")
    assert not puller.into.exists()
    hub.refused.clear()
    had, hub.asked = {name for name, _ in hub.asked}, []
    assert "model.safetensors" in had
    await puller("owner/model")
    assert [name for name, _ in hub.asked] == ["model-2.safetensors"]
    assert [path.name for path in puller.into.parent.iterdir()] == ["mine"]


async def test_what_broke_at_another_commit_leaves_nothing_behind(hub: ModelHub, puller: Puller) -> None:
    hub.refused.add("tokenizer.json")
    hub.commits[OLDER]["extra.json"] = b"{}"
    with pytest.raises(StackFailed):
        await puller(f"owner/model@{OLDER}")
    hub.refused.clear()
    await puller("owner/model")
    assert files_in(puller.into) == model_files(WEIGHTS)


async def test_a_gated_model_is_had_with_a_token(hub: ModelHub, puller: Puller) -> None:
    hub.gated = True
    with pytest.raises(StackFailed, match=r"accepted its terms: .* set HF_TOKEN"):
        await puller("owner/model")
    with pytest.raises(StackFailed, match="HF_TOKEN"):
        await puller("owner/model", HF_TOKEN="hf_of_another")
    assert hub.asked == []
    await puller("owner/model", HF_TOKEN=TOKEN)
    assert files_in(puller.into) == model_files(WEIGHTS)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
async def test_what_is_not_as_the_hub_lists_it_is_refused_and_had_anew(
    hub: ModelHub, puller: Puller, name: str
) -> None:
    hub.damaged.add(name)
    with pytest.raises(StackFailed, match=f"{name} did not come as the hub lists it"):
        await puller("owner/model")
    assert not puller.into.exists()
    hub.damaged.clear()
    hub.asked.clear()
    await puller("owner/model")
    assert [asked for asked, _ in hub.asked] == [name]
    assert files_in(puller.into) == model_files(WEIGHTS)


async def test_a_model_that_is_not_the_pinned_one_is_refused(puller: Puller, tmp_path: Path) -> None:
    shipped = read_model_spec((Settings().models_dir / f"{SHIPPED}.yaml").read_bytes())
    source = HuggingFaceSource("owner/model", COMMIT)
    file = tmp_path / "mine.yaml"
    file.write_bytes(write_model_spec(msgspec.structs.replace(shipped, id="mine", source=source)))
    with pytest.raises(StackFailed, match=f"not the pinned model: its content hash is .*, not {shipped.content_hash}"):
        await puller(str(file))
    assert list(puller.into.parent.iterdir()) == []
    right = content_hash(write_model(tmp_path / "by hand", WEIGHTS))
    pinned = msgspec.structs.replace(shipped, id="mine", source=source, chat_template=None, content_hash=right)
    file.write_bytes(write_model_spec(pinned))
    assert (await puller(str(file))).content_hash == right


async def test_a_model_larger_than_the_disk_is_not_begun(hub: ModelHub, puller: Puller) -> None:
    hub.claimed_sizes["model.safetensors"] = 1 << 60
    with pytest.raises(StackFailed, match=r"MiB free, the model needs \d+"):
        await puller("owner/model")
    assert hub.asked == []


async def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(hub: ModelHub, puller: Puller) -> None:
    """The kernel refuses to write on, as it does where a disk or a quota is full."""
    command = (sys.executable, "-m", "tokenyard_deployments.base_models.fetch", "pull", "owner/model")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(WEIGHTS) // 2,) * 2)

    process = await asyncio.create_subprocess_exec(
        *(*command, "--into", str(puller.into)),
        env=puller.environment,
        stdout=subprocess.PIPE,
        preexec_fn=limited,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"is full. What has come is kept: pull again to go on." in said
    assert not puller.into.exists()
    hub.asked.clear()
    await puller("owner/model")
    assert [name for name, _ in hub.asked] == ["model.safetensors"]


async def test_what_the_hub_does_not_have_is_said(hub: ModelHub, puller: Puller) -> None:
    with pytest.raises(StackFailed, match="owner/model has no revision 'absent'"):
        await puller("owner/model@absent")
    with pytest.raises(StackFailed, match="the hub has no owner/none, or it is private"):
        await puller("owner/none")
    with pytest.raises(StackFailed, match="cannot download 'owner/model'"):
        await puller("owner/model", HF_ENDPOINT="http://127.0.0.1:9")
