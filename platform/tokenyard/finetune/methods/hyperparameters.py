"""What a client may set for training, and what "auto" comes to."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticCustomError

from tokenyard.core.training import Hyperparameters

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_MULTIPLIER = 100


def count_up_to(highest: int) -> BeforeValidator:
    """Take "auto" or a whole number from 1."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest:
            return value
        raise PydanticCustomError("auto_or_count", f'must be "auto" or a whole number from 1 to {highest}')

    return BeforeValidator(check)


def number_up_to(highest: float) -> BeforeValidator:
    """Take "auto" or a number above 0."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= highest:
            return value
        raise PydanticCustomError("auto_or_positive", f'must be "auto" or a number above 0, up to {highest}')

    return BeforeValidator(check)


class RequestedHyperparameters(BaseModel, extra="forbid"):
    """Each of OpenAI's is a number or "auto"."""

    n_epochs: Annotated[int | str, count_up_to(MAX_EPOCHS)] = "auto"
    batch_size: Annotated[int | str, count_up_to(MAX_BATCH_SIZE)] = "auto"
    learning_rate_multiplier: Annotated[float | str, number_up_to(MAX_MULTIPLIER)] = "auto"

    def resolved(self, rows: int) -> Hyperparameters:
        """Return them with every "auto" decided: small datasets get many epochs and large ones few."""
        epochs, batch, multiplier = self.n_epochs, self.batch_size, self.learning_rate_multiplier
        return Hyperparameters(
            n_epochs=max(1, min(10, round(300 / max(1, rows)))) if epochs == "auto" else int(epochs),
            batch_size=max(1, min(32, rows // 10)) if batch == "auto" else int(batch),
            learning_rate_multiplier=1.0 if multiplier == "auto" else float(multiplier),
        )
