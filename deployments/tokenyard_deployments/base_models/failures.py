"""What all ways to fetch a model share: how they tell of progress, and how they fail."""

import shutil
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[str], None]
"""Told each step in words that a user can read."""


class FetchFailed(Exception):
    """The model cannot be had; the message says why and what to do."""


def require_space(needed_bytes: int, folder: Path) -> None:
    """Raise `FetchFailed` where the disk of `folder` has less free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise FetchFailed(f"the disk of {folder} has {free_bytes >> 20} MiB free, the model needs {needed_bytes >> 20}")
