"""Reinforcement fine-tuning: the model answers, a grader says what each answer is worth, and better ones grow likelier.

It is GRPO (Shao et al. 2024): each row is answered several times, and an answer is as good as it is better than the
others of its row.
"""

from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, Field

from tokenyard.core.datasets.reinforcement_rows import CHAT_FIELDS, asks_for_an_answer, check_reinforcement_row
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.shapes import Grader, GraderProblem, parsed_grader
from tokenyard.core.training import Hyperparameters
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters, count_up_to, number_up_to
from tokenyard.finetune.methods.method import Json, RowSize
from tokenyard.finetune.methods.supervised import text_token_bound

AUTO_GENERATIONS = 8
MAX_COMPUTE = 10
MAX_GENERATIONS = AUTO_GENERATIONS * MAX_COMPUTE
MAX_EVALUATION = 1_000_000
AUTO_COMPLETION_TOKENS = 256
MAX_COMPLETION_TOKENS = 4096
MAX_TEMPERATURE = 2
MAX_BETA = 2
GRADER_PLACE = "method.reinforcement.grader"


class ReinforcementHyperparameters(RequestedHyperparameters, extra="forbid"):
    """OpenAI's further ones come first; the last four are ours, under TRL's names.

    `compute_multiplier` is how many times the usual number of answers each row is given; `num_generations` says that
    number itself. `temperature` is that of the answers; the greater `beta` is, the nearer the model stays to its base.
    """

    compute_multiplier: Annotated[float | str, number_up_to(MAX_COMPUTE)] = "auto"
    eval_interval: Annotated[int | str, count_up_to(MAX_EVALUATION)] = "auto"
    eval_samples: Annotated[int | str, count_up_to(MAX_EVALUATION)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"

    num_generations: int | None = Field(default=None, ge=2, le=MAX_GENERATIONS, strict=True)
    max_completion_length: int | None = Field(default=None, ge=1, le=MAX_COMPLETION_TOKENS, strict=True)
    temperature: float | None = Field(default=None, gt=0, le=MAX_TEMPERATURE, strict=True)
    beta: float | None = Field(default=None, ge=0, le=MAX_BETA, strict=True)

    def resolved(self, rows: int, *, auto_multiplier: float) -> Hyperparameters:
        plain = super().resolved(rows, auto_multiplier=auto_multiplier)
        return msgspec.structs.replace(
            plain,
            num_generations=self.num_generations or self._generations(),
            max_completion_length=self.max_completion_length or AUTO_COMPLETION_TOKENS,
            temperature=self.temperature or 1.0,
            beta=self.beta or 0.0,
        )

    @property
    def packs(self) -> bool:
        return False

    def steps(self, wanted: Hyperparameters, rows: int) -> int:
        """Return how many there are: rows that do not fill a step wait for the next epoch, in another order."""
        return wanted.n_epochs * (rows // wanted.batch_size)

    def check_offered(self, where: str) -> None:
        super().check_offered(where)
        refused = {
            "packing": (self.packing is True, "Answers that are made while training are not packed."),
            "group_by_length": (self.group_by_length is True, "How long answers become is not known beforehand."),
            "eval_interval": (self.eval_interval != "auto", "The validation file is measured after each epoch."),
            "eval_samples": (self.eval_samples != "auto", "Each row is measured by its likeliest answer."),
            "reasoning_effort": (self.reasoning_effort != "default", "How long a model reasons cannot be set."),
            "num_generations": (
                self.num_generations is not None and self.compute_multiplier != "auto",
                "Give either num_generations or compute_multiplier: both say how many answers a row is given.",
            ),
        }
        for name, (asked, why) in refused.items():
            if asked:
                raise InvalidRequest(why, code="hyperparameter_not_available", param=f"{where}.{name}")

    def _generations(self) -> int:
        multiplier = 1.0 if self.compute_multiplier == "auto" else float(self.compute_multiplier)
        return max(2, round(AUTO_GENERATIONS * multiplier))


class ReinforcementSettings(BaseModel, extra="forbid"):
    """How reinforcement fine-tuning is set. `grader` is one of OpenAI's, as `/graders/validate` takes it."""

    grader: Json
    hyperparameters: ReinforcementHyperparameters | None = None

    def checked_grader(self) -> Grader:
        """Return the grader; a wrong one raises `InvalidRequest`."""
        return checked_grader(self.grader, GRADER_PLACE)


def checked_grader(value: object, where: str) -> Grader:
    """Return a grader; a wrong one raises `InvalidRequest`, which names the field below `where`."""
    try:
        return parsed_grader(value)
    except GraderProblem as problem:
        param = f"{where}.{problem.param}" if problem.param else where
        raise InvalidRequest(problem.message, code=problem.code, param=param) from problem


class Reinforcement:
    """Learns from answers of its own. A row counts as its prompt; what is generated is known only afterwards."""

    name = "reinforcement"
    conversations = 1

    def takes(self, row: Json) -> bool:
        return asks_for_an_answer(row)

    def check_row(self, row: object) -> RowSize:
        checked = check_reinforcement_row(row)
        chat = {name: checked.item[name] for name in CHAT_FIELDS if name in checked.item}
        return RowSize(len(checked.messages) + 1, text_token_bound(chat))  # the template opens the answer, too
