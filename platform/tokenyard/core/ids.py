"""Identifiers: one type for each thing that has one, and the only place that makes them."""

import secrets
from typing import NewType

OrganizationId = NewType("OrganizationId", str)
PlanId = NewType("PlanId", str)
ProjectId = NewType("ProjectId", str)
ApiKeyId = NewType("ApiKeyId", str)
RequestId = NewType("RequestId", str)
AttemptId = NewType("AttemptId", str)
FileId = NewType("FileId", str)
JobId = NewType("JobId", str)
SweepId = NewType("SweepId", str)
AdapterId = NewType("AdapterId", str)
EvalId = NewType("EvalId", str)
EvalRunId = NewType("EvalRunId", str)
PriceId = NewType("PriceId", str)

# No look-alikes are removed: ids are copied, not typed. 62^22 > 2^128.
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 22
_AT_ONCE = 256


def random_text(length: int = _LENGTH) -> str:
    """Return `length` random base-62 characters (22 of them carry at least 128 bits)."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_organization_id() -> OrganizationId:
    return OrganizationId(f"org_{random_text()}")


def new_plan_id() -> PlanId:
    return PlanId(f"plan_{random_text()}")


def new_project_id() -> ProjectId:
    return ProjectId(f"proj_{random_text()}")


def new_api_key_id() -> ApiKeyId:
    return ApiKeyId(f"key_{random_text()}")


def new_request_id() -> RequestId:
    """Return the id of one client request. vLLM sees it inside the attempt id, so it holds no dot."""
    return RequestId(f"req_{secrets.token_hex(16)}")


class RequestIdSource:
    """Makes ids of client requests, and asks the kernel for the randomness of many at once."""

    def __init__(self) -> None:
        self._unused: list[str] = []

    def new(self) -> RequestId:
        if not self._unused:
            text = secrets.token_hex(16 * _AT_ONCE)
            self._unused = [text[at : at + 32] for at in range(0, len(text), 32)]
        return RequestId(f"req_{self._unused.pop()}")


def new_file_id() -> FileId:
    return FileId(f"file-{random_text()}")


def new_job_id() -> JobId:
    return JobId(f"ftjob-{random_text()}")


def new_sweep_id() -> SweepId:
    return SweepId(f"ftsweep-{random_text()}")


def new_adapter_id() -> AdapterId:
    """Return a lower-case id, because it becomes the last part of a model name."""
    return AdapterId(secrets.token_hex(8))


def new_eval_id() -> EvalId:
    return EvalId(f"eval_{random_text()}")


def new_eval_run_id() -> EvalRunId:
    return EvalRunId(f"evalrun_{random_text()}")


def attempt_id(request: RequestId, number: int) -> AttemptId:
    """Return `<request>.<number>`; attempts of a request count from 1."""
    return AttemptId(f"{request}.{number}")


def request_of(attempt: AttemptId) -> RequestId:
    return RequestId(attempt.rpartition(".")[0])
