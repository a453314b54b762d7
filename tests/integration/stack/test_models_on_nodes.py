"""Replicas begin on nodes that lack their model: of those that share a node's disk, one fetches it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from support.fakes.model_files import model_files, write_model
from support.servers.model_hub import COMMIT, ModelHub
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.model_files.sources import FolderSource, HuggingFaceSource
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.failures import FetchFailed
from tokenyard_deployments.base_models.fetch import pull, shipped_specs
from tokenyard_deployments.base_models.node import bring_to_node
from tokenyard_deployments.base_models.pinned import BrokenModel

SHIPPED = "smollm2-135m-instruct"
SECOND_WAITS_S = 0.5


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ModelHub]:
    hub = ModelHub(model_files())
    async with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as replicas have it
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield hub


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    """A model of the hub, pinned by its content."""
    shipped = read_model_spec((shipped_specs() / f"{SHIPPED}.yaml").read_bytes())
    pinned = content_hash(write_model(tmp_path / "by hand"))
    return msgspec.structs.replace(shipped, source=HuggingFaceSource("owner/model", COMMIT), content_hash=pinned)


async def test_two_replicas_of_a_node_fetch_it_once(hub: ModelHub, spec: ModelSpec, tmp_path: Path) -> None:
    nodes = [tmp_path / name / "models" / spec.id for name in ("one", "two")]
    await asyncio.gather(*(asyncio.to_thread(bring_to_node, spec, node) for node in nodes for _ in range(2)))
    assert [name for name, _ in hub.asked if name == "model.safetensors"] == ["model.safetensors"] * len(nodes)
    assert [content_hash(node) for node in nodes] == [spec.content_hash] * len(nodes)
    before = len(hub.asked)
    await asyncio.to_thread(bring_to_node, spec, nodes[0])
    assert len(hub.asked) == before, "what is there is not asked for"


async def test_what_is_not_to_be_had_is_said(hub: ModelHub, spec: ModelSpec, tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(spec, source=HuggingFaceSource("owner/other", COMMIT))
    with pytest.raises(FetchFailed, match="the hub has no owner/other"):
        await asyncio.to_thread(bring_to_node, elsewhere, tmp_path / "models" / spec.id)


async def test_a_folder_that_is_another_model_is_left_alone(hub: ModelHub, spec: ModelSpec, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models" / spec.id, b"others")
    with pytest.raises(BrokenModel, match="is not the pinned model"):
        await asyncio.to_thread(bring_to_node, spec, folder)
    assert hub.asked == []


def test_a_second_pull_waits_for_the_first_whatever_the_source(tmp_path: Path) -> None:
    source, into = FolderSource(str(write_model(tmp_path / "source"))), tmp_path / "models" / "mine"
    said: list[str] = []
    second = threading.Thread(target=pull, args=(source, into, said.append))

    def start_the_second(_step: str) -> None:
        if second.ident is None:
            second.start()
            second.join(SECOND_WAITS_S)
            assert said == []

    pull(source, into, start_the_second)
    second.join()
    assert said == ["mine is there already"]
    assert [path.name for path in into.parent.iterdir()] == ["mine"]
