"""The fine-tuning methods, each with the rows that it learns from."""

from tokenyard.finetune.methods.completions import Completions, PlainText
from tokenyard.finetune.methods.dpo import Dpo
from tokenyard.finetune.methods.method import FineTuneMethod
from tokenyard.finetune.methods.reinforcement import Reinforcement
from tokenyard.finetune.methods.supervised import Supervised

METHODS: tuple[FineTuneMethod, ...] = (
    Reinforcement(),
    Supervised(),
    Completions(),
    PlainText(),
    Dpo(),
)
"""In the order in which they are offered a row: one whose messages ask for an answer is not for supervised learning."""
