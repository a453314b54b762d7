"""What `ray job submit` sends, read as the request for a job; whatever else it asks for is refused by name."""

import argparse
import shlex
from typing import Any, NoReturn

from pydantic import BaseModel, Field, ValidationError

from tokenyard.core.errors import InvalidRequest
from tokenyard.finetune.job_request import JobRequest

COMMAND = "tokenyard-train"
_HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")
_FIELDS = ("model", "training_file", "validation_file", "suffix", "seed", "publish_if_worse")
_KEPT = ("entrypoint", "submission_id", "metadata")


class Submission(BaseModel, extra="forbid"):
    """Ray's `JobSubmitRequest`. Under the same `submission_id` it is the same job, however often it is sent."""

    entrypoint: str = Field(max_length=4096)
    submission_id: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")
    metadata: dict[str, str] | None = None
    job_id: str | None = None
    runtime_env: dict[str, Any] | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: dict[str, float] | None = None
    entrypoint_label_selector: dict[str, str] | None = None

    def request(self) -> JobRequest:
        """Return the request that the command line stands for.

        Raises:
            InvalidRequest: it is another command, has flags that are not for tenants, or the body asks for more.
        """
        for name in sorted(self.model_fields_set - set(_KEPT)):
            if getattr(self, name):
                raise InvalidRequest(
                    f"`{name}` is not available: nothing of yours runs here but `{COMMAND}`, on its own terms.",
                    param=name,
                )
        words = _words(self.entrypoint)
        if not words or words[0] != COMMAND:
            raise InvalidRequest(f"The entrypoint must be `{COMMAND}` and its flags.", param="entrypoint")
        given = {name: value for name, value in vars(_parser().parse_args(words[1:])).items() if value is not None}
        hyperparameters = {name: given[name] for name in _HYPERPARAMETERS if name in given}
        asked: dict[str, Any] = {name: given[name] for name in _FIELDS if name in given}
        if hyperparameters:
            asked["hyperparameters"] = hyperparameters
        if self.metadata:
            asked["metadata"] = self.metadata
        try:
            return JobRequest.model_validate(asked)
        except ValidationError as error:
            first = error.errors()[0]
            flag = str(first["loc"][-1]).replace("_", "-")
            raise InvalidRequest(f"--{flag}: {first['msg']}", param="entrypoint") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{COMMAND}: {message}", param="entrypoint")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=COMMAND, add_help=False, allow_abbrev=False)
    for name in ("model", "training-file"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("validation-file", "suffix"):
        parser.add_argument(f"--{name}")
    for name in ("seed", "n-epochs", "batch-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--learning-rate-multiplier", type=float)
    parser.add_argument("--publish-if-worse", action="store_const", const=True)
    return parser


def _words(entrypoint: str) -> list[str]:
    try:
        return shlex.split(entrypoint)
    except ValueError as error:
        raise InvalidRequest(f"The entrypoint is no command line: {error}.", param="entrypoint") from None
