"""The fetcher as a process of its own, and what is passed on of what it says."""

import os
from pathlib import Path

import pytest

from support.fakes.model_files import write_model
from tokenyard.stack.base_models import pull
from tokenyard.stack.installation import StackFailed
from tokenyard_deployments.base_models.content import content_hash


async def test_a_local_model_is_taken_and_its_steps_are_told(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    into = tmp_path / "models" / "mine"
    steps: list[str] = []
    done = await pull((str(source), "--into", str(into)), os.environ, steps.append)
    assert (done.path, done.content_hash) == (str(into), content_hash(source))
    assert (into / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    again: list[str] = []
    await pull((str(source), "--into", str(into)), os.environ, again.append)
    assert again == ["mine is there already"]


async def test_an_incomplete_model_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(StackFailed, match=r"has no \*\.safetensors weights"):
        await pull(("smollm2-135m-instruct", "--into", str(broken)), os.environ, lambda _step: None)


async def test_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackFailed, match="'nope' is no known model"):
        await pull(("nope", "--into", str(tmp_path / "nope")), os.environ, lambda _step: None)
    assert not (tmp_path / "nope").exists()
