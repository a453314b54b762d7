"""What `ray job submit` sends, read as the request for a job; whatever else it asks for is refused by name."""

import argparse
import shlex
from typing import Any, NoReturn

from pydantic import BaseModel, Field, ValidationError

from tokenyard.core.errors import InvalidRequest
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.ray_jobs.command_line import add_job_flags, job_body

COMMAND = "tokenyard-train"
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
        asked = job_body(_parser().parse_args(words[1:]))
        if "sweep" in asked:
            raise InvalidRequest(f"{COMMAND}: --sweep: a submission is one job.", param="entrypoint")
        if self.metadata:
            asked["metadata"] = self.metadata
        try:
            return JobRequest.model_validate(asked)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"{COMMAND}: {place}: {first['msg']}", param="entrypoint") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{COMMAND}: {message}", param="entrypoint")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=COMMAND, add_help=False, allow_abbrev=False)
    add_job_flags(parser, files="the id of an uploaded file")
    return parser


def _words(entrypoint: str) -> list[str]:
    try:
        return shlex.split(entrypoint)
    except ValueError as error:
        raise InvalidRequest(f"The entrypoint is no command line: {error}.", param="entrypoint") from None
