"""The fine-tuning methods, one a file."""

from tokenyard.finetune.methods.dpo import Dpo
from tokenyard.finetune.methods.method import FineTuneMethod
from tokenyard.finetune.methods.supervised import Supervised

METHODS: tuple[FineTuneMethod, ...] = (Supervised(), Dpo())
