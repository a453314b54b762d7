"""Fine-tuning on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest

from support.finetune_stack import FinetuneStack
from tokenyard.storage.database import Database


@pytest.fixture
def stack(database: Database, tmp_path: Path) -> FinetuneStack:
    return FinetuneStack(database, tmp_path)
