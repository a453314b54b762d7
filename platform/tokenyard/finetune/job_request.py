"""The body of `POST /v1/fine_tuning/jobs`, checked field by field."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tokenyard.core.adapters import valid_suffix
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.shapes import Grader
from tokenyard.finetune.job import AskedEvaluation, Integration, WandbSettings
from tokenyard.finetune.methods.adapter import AdapterSettings
from tokenyard.finetune.methods.dpo import DpoHyperparameters, DpoSettings
from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters
from tokenyard.finetune.methods.reinforcement import ReinforcementHyperparameters, ReinforcementSettings
from tokenyard.finetune.methods.supervised import SupervisedSettings
from tokenyard.finetune.results.wandb_run import wandb_is_installed
from tokenyard.web.request_guard import NO_NUL

MAX_SEED = 2_147_483_647
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_EVALUATION_ROWS = 20
MAX_CALLABLE_CHECKPOINTS = 3
DEFAULT_SUFFIX = "custom"
MAX_WANDB_TAGS = 20
WandbTag = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)]
_NEED_SETTINGS = ("reinforcement", "adapter")


class MethodRequest(BaseModel, extra="forbid"):
    """The method and its settings."""

    type: Literal["supervised", "dpo", "reinforcement", "adapter", "full"]
    supervised: SupervisedSettings | None = None
    dpo: DpoSettings | None = None
    reinforcement: ReinforcementSettings | None = None
    adapter: AdapterSettings | None = None

    @property
    def settings(self) -> dict[str, BaseModel | None]:
        """What was said of each method, by its name."""
        return {
            "supervised": self.supervised,
            "dpo": self.dpo,
            "reinforcement": self.reinforcement,
            "adapter": self.adapter,
        }


class EvaluationRequest(BaseModel, extra="forbid"):
    """Base and tuned model answer the same questions once the job has succeeded, and `evaluation.json` compares them.

    They are asked the first `rows` of the validation file (default: 20 where there is one) and, with `general`, some
    thirty short questions that show what was forgotten. Each answer is an ordinary request of the key that creates
    the job, and charged as one.
    """

    rows: int | None = Field(default=None, ge=0, le=MAX_EVALUATION_ROWS, strict=True)
    general: bool = Field(default=False, strict=True)


class WandbRequest(BaseModel, extra="forbid"):
    """OpenAI's settings of the integration."""

    project: str = Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:\x00]+$")  # as they allow it
    name: str | None = Field(default=None, min_length=1, max_length=128, pattern=NO_NUL)
    entity: str | None = Field(default=None, min_length=1, max_length=128, pattern=NO_NUL)
    tags: list[WandbTag] = Field(default_factory=list, max_length=MAX_WANDB_TAGS)


class IntegrationRequest(BaseModel, extra="forbid"):
    """OpenAI knows `wandb` alone."""

    type: Literal["tensorboard", "wandb"]
    wandb: WandbRequest | None = None


class JobRequest(BaseModel, extra="forbid"):
    """What a client asks for. `hyperparameters` is the older place of those of `method.supervised`.

    A model that is no better than its base on the validation file is not published, unless `publish_if_worse` is true.
    `callable_checkpoints` is how many epochs' checkpoints, the last ones, can be called like the model itself, from
    their epoch's end on; each is stored and hosted as a model of its own, but for that of the last step, which is the
    model. To these and to `evaluation` OpenAI's API has no counterpart.
    """

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=96, pattern=NO_NUL)
    validation_file: str | None = Field(default=None, max_length=96, pattern=NO_NUL)
    suffix: str | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    hyperparameters: RequestedHyperparameters | None = None
    method: MethodRequest | None = None
    integrations: list[IntegrationRequest] | None = Field(default=None, max_length=5)
    metadata: dict[str, str] | None = None
    publish_if_worse: bool | None = Field(default=None, strict=True)
    evaluation: EvaluationRequest | None = None
    callable_checkpoints: int | None = Field(default=None, ge=0, le=MAX_CALLABLE_CHECKPOINTS, strict=True)

    def check(self) -> None:
        """Check what concerns more than one field, or what is not offered; the `InvalidRequest` names the field."""
        if self.method is not None:
            _check_method(self.method)
        if self.method is not None and self.hyperparameters is not None:
            raise InvalidRequest(
                "Give hyperparameters either in `method` or in `hyperparameters`, not in both.", param="hyperparameters"
            )
        if self.validation_file is None and self.hyperparameters_asked.early_stopping_patience is not None:
            raise InvalidRequest(
                "Stopping early needs a validation_file.", param=f"{self.hyperparameters_place}.early_stopping_patience"
            )
        if self.validation_file is None and self.publish_if_worse:
            raise InvalidRequest(
                "Whether a model is worse than its base is told by a validation_file.", param="publish_if_worse"
            )
        self._check_evaluation()
        if self.adapter is not None and self.validation_file is not None:
            raise InvalidRequest("Nothing is trained, so there is nothing to validate.", param="validation_file")
        if self.adapter is not None and self.callable_checkpoints:
            raise InvalidRequest("Nothing is trained, so there are no checkpoints.", param="callable_checkpoints")
        self._check_integrations()
        if self.suffix is not None and not valid_suffix(self.effective_suffix):
            raise InvalidRequest("The suffix must be 1 to 64 of a-z, 0-9 and '-', not '-' first.", param="suffix")
        _check_metadata(self.metadata or {})

    def _check_evaluation(self) -> None:
        if self.evaluation is not None and self.evaluation.rows and self.validation_file is None:
            raise InvalidRequest("The rows are those of a validation_file.", param="evaluation.rows")
        if self.evaluation is not None and self.asked_evaluation is None:
            raise InvalidRequest(
                "An evaluation asks rows of a validation_file, or general questions.", param="evaluation"
            )

    def _check_integrations(self) -> None:
        for number, one in enumerate(self.integrations or ()):
            place = f"integrations.{number}.wandb"
            if (one.type == "wandb") != (one.wandb is not None):
                raise InvalidRequest("The integration 'wandb' has settings, and no other does.", param=place)
        if len([one for one in self.integrations or () if one.wandb is not None]) > 1:
            raise InvalidRequest("A job is one run of Weights & Biases.", param="integrations")
        if self.asked_wandb is not None and not wandb_is_installed():
            raise InvalidRequest(
                "Weights & Biases is not available here: `tensorboard` leaves a file among `result_files`.",
                code="integration_not_available",
                param="integrations",
            )

    @property
    def asked_evaluation(self) -> AskedEvaluation | None:
        """What base and tuned model are to be asked; None: nothing."""
        if self.evaluation is None:
            return None
        all_rows = MAX_EVALUATION_ROWS if self.validation_file is not None else 0
        rows = all_rows if self.evaluation.rows is None else self.evaluation.rows
        return AskedEvaluation(rows=rows, general=self.evaluation.general) if rows or self.evaluation.general else None

    @property
    def asked_integrations(self) -> tuple[Integration, ...]:
        return tuple(dict.fromkeys(Integration(one.type) for one in self.integrations or ()))

    @property
    def asked_wandb(self) -> WandbSettings | None:
        """What was said of a run of Weights & Biases; None: there is to be none."""
        asked = next((one.wandb for one in self.integrations or () if one.wandb is not None), None)
        if asked is None:
            return None
        return WandbSettings(project=asked.project, name=asked.name, entity=asked.entity, tags=tuple(asked.tags))

    @property
    def digest(self) -> str:
        """A hash that is the same for the same request, in whatever order its fields came."""
        asked = json.dumps(self.model_dump(exclude_none=True), sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    @property
    def effective_suffix(self) -> str:
        return DEFAULT_SUFFIX if self.suffix is None else self.suffix.lower()

    @property
    def method_name(self) -> str:
        return "supervised" if self.method is None else self.method.type

    @property
    def adapter(self) -> AdapterSettings | None:
        """The adapter that is to be taken in; None where one is to be trained."""
        return None if self.method is None else self.method.adapter

    @property
    def grader(self) -> Grader | None:
        """What says how much an answer is worth, where the method learns from that."""
        asked = None if self.method is None else self.method.reinforcement
        return None if asked is None else asked.checked_grader()

    @property
    def hyperparameters_asked(self) -> RequestedHyperparameters:
        """What training is set to, wherever the client said so."""
        if self.method is None:
            return self.hyperparameters or RequestedHyperparameters()
        if self.method.type == "dpo":
            return (self.method.dpo or DpoSettings()).hyperparameters or DpoHyperparameters()
        if self.method.reinforcement is not None:
            return self.method.reinforcement.hyperparameters or ReinforcementHyperparameters()
        return (self.method.supervised or SupervisedSettings()).hyperparameters or RequestedHyperparameters()

    @property
    def hyperparameters_place(self) -> str:
        """The field of the request in which they stand."""
        return "hyperparameters" if self.method is None else f"method.{self.method.type}.hyperparameters"


def _check_method(method: MethodRequest) -> None:
    if method.type == "full":
        raise InvalidRequest(
            "Full fine-tuning is not available: what it makes is a base model of its own, which would need replicas of "
            "its own. Adapters share those of their base; use 'supervised' or 'dpo', with a higher rank if need be.",
            code="method_not_available",
            param="method.type",
        )
    if any(settings is not None for name, settings in method.settings.items() if name != method.type):
        raise InvalidRequest(f"Only method.{method.type} fits the method '{method.type}'.", param="method")
    if method.type in _NEED_SETTINGS and method.settings[method.type] is None:
        raise InvalidRequest(f"Missing required field `method.{method.type}`.", param=f"method.{method.type}")


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
