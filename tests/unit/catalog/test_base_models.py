"""Base models come from one file each."""

from pathlib import Path

import msgspec
import pytest

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import InvalidModelSpec, ModelSpec
from tokenyard.settings import Settings


def test_the_shipped_models_are_read_as_the_settings_name_them(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    bases = BaseModels.load(settings.models, settings.models_dir, tmp_path / "models")
    found = bases.get("smollm2-135m-instruct")
    assert found is not None
    assert found.path == str(tmp_path / "models" / "smollm2-135m-instruct")
    assert (found.context_length, found.max_lora_rank) == (8192, 16)
    assert (found.sampling.temperature, found.sampling.top_p, found.calls_tools) == (0.2, 0.9, True)
    assert (found.max_silence_s, found.max_request_s) == (120, 900)
    assert bases.get("another") is None
    assert [base.id for base in bases.all()] == list(settings.models)


def test_a_missing_file_and_one_of_another_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelSpec, match="absent"):
        BaseModels.load(["absent"], tmp_path, tmp_path)
    shipped = Settings().models_dir / "smollm2-135m-instruct.yaml"
    (tmp_path / "other.yaml").write_bytes(shipped.read_bytes())
    with pytest.raises(InvalidModelSpec, match="smollm2-135m-instruct"):
        BaseModels.load(["other"], tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ('{"vocab_size": 49152, "hidden_size": 576}', 49152),
        ('{"text_config": {"vocab_size": 7}, "vision_config": {}}', 7),
        ("{}", None),
        ("not json", None),
        (None, None),
    ],
)
def test_the_vocabulary_is_that_of_the_models_folder(tmp_path: Path, config: str | None, size: int | None) -> None:
    settings = Settings(data_dir=tmp_path)
    folder = tmp_path / settings.models[0]
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    found = BaseModels.load(settings.models, settings.models_dir, tmp_path).get(settings.models[0])
    assert found is not None
    assert found.vocabulary_size == size


def _specs() -> tuple[ModelSpec, ModelSpec]:
    """One of our own, and one that is served elsewhere."""
    own = read_model_spec((Settings().models_dir / "smollm2-135m-instruct.yaml").read_bytes())
    server = ServerSource("https://models.example/v1", "theirs")
    return own, msgspec.structs.replace(own, id="sold", source=server, lora=None, accelerators={})


def test_a_model_elsewhere_takes_no_adapters_and_may_stand_in_for_one_of_ours(tmp_path: Path) -> None:
    own, sold = _specs()
    bases = BaseModels([msgspec.structs.replace(own, fallback="sold"), sold], tmp_path)
    elsewhere, ours = bases.get("sold"), bases.get(own.id)
    assert elsewhere is not None
    assert ours is not None
    assert (elsewhere.server, elsewhere.max_lora_rank) == (sold.source, 0)
    assert (ours.server, ours.fallback) == (None, elsewhere)
    assert [base.id for base in bases.all()] == [own.id, "sold"]


def test_two_of_one_id_and_a_fallback_that_is_none_are_refused(tmp_path: Path) -> None:
    own, sold = _specs()
    with pytest.raises(InvalidModelSpec, match="same id"):
        BaseModels([own, msgspec.structs.replace(sold, id=own.id)], tmp_path)
    for fallback in (own.id, "absent"):
        with pytest.raises(InvalidModelSpec, match="fallback"):
            BaseModels([msgspec.structs.replace(own, fallback=fallback), sold], tmp_path)
