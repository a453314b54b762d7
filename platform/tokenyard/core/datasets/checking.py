"""The check of a job's files in the training cluster: what it is told, and the report that it writes.

`jobs/<organization>/<job>/check-<run>/` holds `spec.json` (in) and `result.json` (out). The report stays in the job's
folder as `data_report.json`. It has line numbers and counts, and nothing of what the lines say.
"""

import msgspec

from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import Hyperparameters, attempts_folder

DATA_REPORT = "data_report.json"
MAX_LINES_NAMED = 20


class CheckLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one run. `memory_bytes` is what its process may keep resident, libraries included."""

    timeout_s: float
    memory_bytes: int = 2 << 30
    nice: int = 15


class CheckSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run over a job's files, of which `files` has the fsspec URLs by the field of the request that names them."""

    job: JobId
    run: int
    organization: OrganizationId
    method: str
    base_model_path: str
    max_seq_length: int
    files: dict[str, str]
    output_url: str
    limits: CheckLimits
    hyperparameters: Hyperparameters | None = None


class TokenLengths(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of whole rendered rows, before they are cut. `rows_up_to` counts rows by the next power of two."""

    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    rows_up_to: dict[str, int]


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """A file in figures. `tokens` are those of all rows as cut, which one epoch trains on; of them `learnt`."""

    rows: int
    tokens: int
    learnt: int
    lengths: TokenLengths


class DataFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that its tenant should look at; it stops nothing. `lines` are the first of `count`."""

    code: str
    file: str
    count: int
    message: str
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        lines = ", ".join(map(str, self.lines))
        more = ", ..." if self.count > len(self.lines) else ""
        where = f" ({'line' if len(self.lines) == 1 else 'lines'} {lines}{more})" if lines else ""
        return f"{self.message}{where}"


class DataReport(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a job's files; both maps and findings name a file by the request's field."""

    job: JobId
    checked_at: int
    max_seq_length: int
    files: dict[str, FileReport]
    findings: tuple[DataFinding, ...] = ()


class CheckError(msgspec.Struct, frozen=True):
    """Why the files cannot be used, in words for the tenant; `retryable` means that they are not to blame."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False


class CheckResult(msgspec.Struct, frozen=True):
    """A run's end: the report or the error."""

    report: DataReport | None = None
    error: CheckError | None = None


def check_folder(organization: OrganizationId, job: JobId, run: int) -> str:
    """Return the folder of one run."""
    return f"{attempts_folder(organization, job)}/check-{run}"


def check_id(job: JobId, run: int) -> str:
    """Return the id under which Ray knows the run."""
    return f"{job}-check-{run}"
