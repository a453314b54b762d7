"""The body of `POST /v1/fine_tuning/jobs`, checked field by field."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tokenyard.core.adapters import valid_suffix
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import Hyperparameters, auto_hyperparameters

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_SEED = 2_147_483_647
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
DEFAULT_SUFFIX = "custom"


def _auto_or_count(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise PydanticCustomError("auto_or_count", 'must be "auto" or a whole number')


def _auto_or_positive(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 < value <= _MAX_MULTIPLIER):
        return value
    raise PydanticCustomError("auto_or_positive", f'must be "auto" or a number above 0, up to {_MAX_MULTIPLIER}')


def _within(low: int, high: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if _auto_or_count(value) != "auto" and not low <= value <= high:
            raise PydanticCustomError("out_of_range", f'must be "auto" or a whole number from {low} to {high}')
        return value

    return BeforeValidator(check)


_MAX_MULTIPLIER = 100
_NO_NUL = r"^[^\x00]*$"
_Epochs = Annotated[Any, _within(1, MAX_EPOCHS)]
_BatchSize = Annotated[Any, _within(1, MAX_BATCH_SIZE)]
_Multiplier = Annotated[Any, BeforeValidator(_auto_or_positive)]


class RequestedHyperparameters(BaseModel):
    """Each is a number or "auto"."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: _Epochs = "auto"
    batch_size: _BatchSize = "auto"
    learning_rate_multiplier: _Multiplier = "auto"


class SupervisedMethod(BaseModel):
    """How supervised fine-tuning is set."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: RequestedHyperparameters | None = None


class Method(BaseModel):
    """The newer place of the hyperparameters."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class JobRequest(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=96, pattern=_NO_NUL)
    validation_file: str | None = Field(default=None, max_length=96, pattern=_NO_NUL)
    suffix: str | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    hyperparameters: RequestedHyperparameters | None = None
    method: Method | None = None
    integrations: list[Any] | None = None
    metadata: dict[str, str] | None = None

    def check(self) -> None:
        """Check what concerns more than one field, or what is not offered.

        Raises:
            InvalidRequest: naming the field.
        """
        if self.method is not None and self.method.type != "supervised":
            raise InvalidRequest(
                f"The method '{self.method.type}' is not available; use 'supervised'.",
                code="method_not_available",
                param="method.type",
            )
        if self.method is not None and (self.method.dpo is not None or self.method.reinforcement is not None):
            raise InvalidRequest("Only method.supervised fits the method 'supervised'.", param="method")
        if self.method is not None and self.hyperparameters is not None:
            raise InvalidRequest(
                "Give hyperparameters either in `method` or in `hyperparameters`, not in both.", param="hyperparameters"
            )
        if self.integrations:
            raise InvalidRequest(
                "Integrations are not available; leave `integrations` out.",
                code="integration_not_available",
                param="integrations",
            )
        if self.suffix is not None and not valid_suffix(self.effective_suffix):
            raise InvalidRequest("The suffix must be 1 to 64 of a-z, 0-9 and '-', not '-' first.", param="suffix")
        _check_metadata(self.metadata or {})

    @property
    def effective_suffix(self) -> str:
        return DEFAULT_SUFFIX if self.suffix is None else self.suffix.lower()

    def resolved(self, rows: int) -> Hyperparameters:
        """Return the hyperparameters with every "auto" decided for a dataset of `rows`."""
        supervised = self.method.supervised if self.method is not None else None
        asked = (supervised.hyperparameters if supervised else self.hyperparameters) or RequestedHyperparameters()
        auto = auto_hyperparameters(rows)
        multiplier = asked.learning_rate_multiplier
        return Hyperparameters(
            n_epochs=auto.n_epochs if asked.n_epochs == "auto" else asked.n_epochs,
            batch_size=auto.batch_size if asked.batch_size == "auto" else asked.batch_size,
            learning_rate_multiplier=auto.learning_rate_multiplier if multiplier == "auto" else float(multiplier),
        )


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MAX_METADATA:
        raise InvalidRequest(f"metadata holds more than {MAX_METADATA} pairs.", param="metadata")
    for key, value in metadata.items():
        if not _storable(key + value):
            raise InvalidRequest("metadata must hold neither NUL nor half surrogate pairs.", param="metadata")
        if not 0 < len(key) <= MAX_METADATA_KEY:
            raise InvalidRequest(f"A key of metadata must have 1 to {MAX_METADATA_KEY} characters.", param="metadata")
        if len(value) > MAX_METADATA_VALUE:
            raise InvalidRequest(
                f"metadata.{key} is longer than {MAX_METADATA_VALUE} characters.", param=f"metadata.{key}"
            )


def _storable(text: str) -> bool:
    """Tell whether PostgreSQL and UTF-8 can carry the text."""
    return "\x00" not in text and text.encode("utf-8", "ignore").decode() == text
