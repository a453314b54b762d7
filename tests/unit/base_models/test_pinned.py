"""A folder is taken for a base model where it is complete, and for the pinned one where its weights are those."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.fakes.model_files import write_model
from tokenyard_deployments.base_models.content import content_hash
from tokenyard_deployments.base_models.pinned import BrokenModel, check_content, check_model


def test_another_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    check_content(model, None)
    check_content(model, content_hash(model))
    with pytest.raises(BrokenModel, match="is not the pinned model"):
        check_content(model, "0" * 64)


def test_what_stands_beside_the_weights_does_not_make_it_another(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    before = content_hash(model)
    (model / "chat_template.jinja").write_text("another")
    check_content(model, before)
    check_content(write_model(tmp_path / "elsewhere"), before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda _whole: b"weights",
        lambda _whole: b"",
        lambda whole: whole[:8] + b"not json" + whole[16:],
        lambda _whole: b"\x02" + 7 * b"\0" + b"[]",
    ],
)
def test_weights_that_are_not_whole_are_said(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    model = write_model(tmp_path / "model")
    check_model(model)
    file = model / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BrokenModel, match=r"model\.safetensors is (damaged|not whole)"):
        check_model(model)
