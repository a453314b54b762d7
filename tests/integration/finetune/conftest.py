"""Files and fine-tuning on SQLite and on PostgreSQL."""

from support.finetune.fixtures import stack

__all__ = ["stack"]
