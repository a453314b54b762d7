"""Files and fine-tuning on a socket."""

from support.finetune_fixtures import platform

__all__ = ["platform"]
