"""A base model is known by its weights: not by its name, nor by what else lies in its folder."""

import os
from pathlib import Path

import pytest

from tokenyard_deployments.base_models.content import MEMO_FILE, content_hash


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    return folder


def test_the_same_weights_are_the_same_model_whatever_it_is_called(tmp_path: Path) -> None:
    one = write(tmp_path / "one", model=b"weights")
    other = write(tmp_path / "other", model=b"weights")
    (other / "config.json").write_text('{"transformers_version": "5.0"}')
    assert content_hash(one) == content_hash(other)
    assert len(content_hash(one)) == 64


@pytest.mark.parametrize("files", [{"model": b"other"}, {"model": b"weights", "more": b""}, {"m": b"weights"}])
def test_other_weights_are_another_model(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert content_hash(write(tmp_path / "one", model=b"weights")) != content_hash(write(tmp_path / "two", **files))


def test_it_is_worked_out_once_and_anew_where_the_weights_changed(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", model=b"weights")
    first = content_hash(folder)
    memo = folder / MEMO_FILE
    memo.write_text(memo.read_text().replace(first, "f" * 64))
    assert content_hash(folder) == "f" * 64, "it was not read again"
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.safetensors", (1, 1))
    assert content_hash(folder) not in (first, "f" * 64)
    memo.write_text("{")
    assert content_hash(folder) not in (first, "f" * 64)


def test_a_folder_that_is_only_read_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "one", model=b"weights")

    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert len(content_hash(folder)) == 64
    assert not (folder / MEMO_FILE).exists()


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path)
