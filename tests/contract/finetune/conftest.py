"""Files and fine-tuning on a socket."""

from support.finetune.fixtures import platform, stack

__all__ = ["platform", "stack"]
