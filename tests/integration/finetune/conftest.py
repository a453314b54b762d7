"""Files and fine-tuning on SQLite and on PostgreSQL."""

from support.finetune_fixtures import stack

__all__ = ["stack"]
