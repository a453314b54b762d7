"""Direct preference optimization on pairs of answers, one pair a row."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel

from tokenyard.core.datasets.preference_rows import OUTPUTS, check_preference_row
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import Hyperparameters
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters, number_up_to
from tokenyard.finetune.methods.method import Json, RowSize
from tokenyard.finetune.methods.supervised import text_token_bound

MAX_BETA = 2
AUTO_BETA = 0.1


class DpoHyperparameters(RequestedHyperparameters, extra="forbid"):
    """The greater `beta` is, the nearer the model stays to what it was."""

    beta: Annotated[float | str, number_up_to(MAX_BETA)] = "auto"

    def resolved(self, rows: int, *, auto_multiplier: float) -> Hyperparameters:
        beta = AUTO_BETA if self.beta == "auto" else float(self.beta)
        return msgspec.structs.replace(super().resolved(rows, auto_multiplier=auto_multiplier), beta=beta)

    def check_offered(self, where: str) -> None:
        super().check_offered(where)
        if self.packing:
            message = "Pairs of answers are not packed: only rows of the method 'supervised' are."
            raise InvalidRequest(message, code="packing_not_available", param=f"{where}.packing")

    @property
    def packs(self) -> bool:
        return False


class DpoSettings(BaseModel, extra="forbid"):
    """How direct preference optimization is set."""

    hyperparameters: DpoHyperparameters | None = None


class Dpo:
    """Learns to prefer one answer to another.

    A row counts as the two conversations that it stands for, so the tokens of what both answers follow count twice.
    """

    name = "dpo"
    conversations = 2

    def takes(self, row: Json) -> bool:
        return "input" in row

    def check_row(self, row: object) -> RowSize:
        check_preference_row(row)
        assert isinstance(row, dict), "it is checked"
        chats = _chats(row)
        return RowSize(
            sum(len(chat["messages"]) for chat in chats),
            sum(map(text_token_bound, chats)),
        )


def _chats(row: dict[str, Any]) -> list[Any]:
    """Return a checked row as the rows of its two conversations."""
    before = row["input"]
    return [{**before, "messages": [*before["messages"], *row[output]]} for output in OUTPUTS]
