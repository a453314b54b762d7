"""The static part of the gate: what an adapter must be before any replica sees it. Pure checks of files."""

from pathlib import Path

from tokenyard.core.adapters import AdapterRules, BaseShapes, WeightsCheck
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_files

_CHUNK_BYTES = 1 << 20


def check_adapter(folder: Path, base: BaseShapes, rules: AdapterRules) -> None:
    """Check the adapter in `folder` against the shapes of its base model (see `base_shapes`).

    Raises:
        AdapterNotAllowed: it is damaged, of a foreign kind, does not fit the base, or does nothing.
    """
    check_adapter_files([file.name for file in folder.iterdir()])
    check = WeightsCheck(rules, base=base, rank=rules.read((folder / ADAPTER_CONFIG).read_bytes()))
    with (folder / ADAPTER_WEIGHTS).open("rb") as weights:
        while chunk := weights.read(_CHUNK_BYTES):
            check.feed(chunk)
    check.finish()
