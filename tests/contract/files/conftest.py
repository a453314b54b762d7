"""Files and fine-tuning on a socket."""

from support.finetune.fixtures import platform

__all__ = ["platform"]
