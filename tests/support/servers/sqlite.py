"""SQLite files that hold nothing."""

import shutil
from pathlib import Path


def fresh_copy(empty: Path) -> Path:
    """Put a copy of `empty` in place of the last one, beside it; whoever still has that one open keeps it apart."""
    copy = empty.with_name("test.db")
    for left in (copy, *(copy.with_name(f"{copy.name}-{end}") for end in ("wal", "shm", "journal"))):
        left.unlink(missing_ok=True)
    shutil.copy(empty, copy)
    return copy
