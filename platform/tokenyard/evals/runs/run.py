"""A run and its items, as workers and routes see them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from tokenyard.core.ids import ApiKeyId, EvalId, EvalRunId, OrganizationId, ProjectId
from tokenyard.core.usage import TokenUsage
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.ports import Json
from tokenyard.evals.tables import EvalItemRow, EvalRunRow


class EvalRunState(StrEnum):
    """OpenAI's statuses. What is `deleted` nobody sees any more; a worker removes it, with its items."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    DELETED = "deleted"


UNFINISHED = (EvalRunState.QUEUED, EvalRunState.IN_PROGRESS)


class ItemState(StrEnum):
    """`error`: a model did not answer, so that nobody knows whether it passes. What is `pending` is not shown."""

    PENDING = "pending"
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    ERROR = "error"


class RunError(msgspec.Struct, frozen=True):
    code: str
    message: str


class CriterionCount(msgspec.Struct, frozen=True):
    """How many items passed one criterion, and how many did not."""

    passed: int = 0
    failed: int = 0


class ModelCount(msgspec.Struct, frozen=True):
    """What one model was asked for a run, and what its answers took."""

    calls: int
    usage: TokenUsage

    def plus(self, usage: TokenUsage) -> "ModelCount":
        both = (self.usage, usage)
        total = TokenUsage(
            sum(one.prompt_tokens for one in both),
            sum(one.completion_tokens for one in both),
            sum(one.cached_tokens for one in both),
        )
        return ModelCount(self.calls + 1, total)


class RunTally(msgspec.Struct, frozen=True):
    """What has come of a run's items so far."""

    passed: int = 0
    failed: int = 0
    errored: int = 0
    criteria: dict[str, CriterionCount] = {}
    models: dict[str, ModelCount] = {}


class RunContent(msgspec.Struct, frozen=True):
    """`data_source` as it was sent; the rest is the eval's, which a run outlives no more than its eval does."""

    data_source: Json
    testing_criteria: Sequence[Json]
    item_schema: Json
    with_samples: bool


class EvalRun(msgspec.Struct, frozen=True):
    """A run. `deadline_ms` is there once a worker had it, `total` once its rows are written."""

    id: EvalRunId
    eval: EvalId
    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    name: str
    metadata: Mapping[str, str]
    model: str
    created_at_ms: int
    content: RunContent
    state: EvalRunState = EvalRunState.QUEUED
    deadline_ms: int | None = None
    total: int | None = None
    tally: RunTally = RunTally()
    error: RunError | None = None


class EvalSample(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is graded: that of `model` to `input`, or the one of the row, and then there is no model."""

    text: str
    input: Sequence[Json] = ()
    model: str = ""
    finish_reason: str = ""
    tokens: TokenUsage = TokenUsage(0, 0)
    error: RunError | None = None


class GraderReply(msgspec.Struct, frozen=True):
    """What a model said to a grader; `error` says why it said nothing."""

    model: str
    text: str
    finish_reason: str
    tokens: TokenUsage
    error: str | None = None


class Result(msgspec.Struct, frozen=True):
    """What one criterion makes of an item. `errors` are OpenAI's flags of what could not be graded."""

    name: str
    type: str
    score: float
    passed: bool
    replies: Sequence[GraderReply] = ()
    errors: Sequence[str] = ()


class Item(msgspec.Struct, frozen=True):
    """A row, with the answer that it came with, and what came of it."""

    item: Json
    given: str | None = None
    sample: EvalSample | None = None
    results: Sequence[Result] = ()


class StoredItem(msgspec.Struct, frozen=True):
    id: str
    number: int
    state: ItemState
    created_at_ms: int
    content: Item


def item_id(run: EvalRunId, number: int) -> str:
    """Return the same id whoever writes the row."""
    return f"outputitem_{run.removeprefix('evalrun_')}_{number}"


def run_of(row: EvalRunRow, cipher: EvalCipher) -> EvalRun:
    return EvalRun(
        id=EvalRunId(row.id),
        eval=EvalId(row.eval),
        organization=OrganizationId(row.organization),
        project=ProjectId(row.project),
        key=ApiKeyId(row.key),
        name=row.name,
        metadata=row.details,
        model=row.model,
        created_at_ms=row.created_at_ms,
        content=cipher.decrypt(row.id, row.content, RunContent),
        state=EvalRunState(row.state),
        deadline_ms=row.deadline_ms,
        total=row.total,
        tally=msgspec.convert(row.tally, RunTally),
        error=None if row.error is None else msgspec.convert(row.error, RunError),
    )


def item_of(row: EvalItemRow, cipher: EvalCipher) -> StoredItem:
    content = cipher.decrypt(row.id, row.content, Item)
    return StoredItem(row.id, row.number, ItemState(row.state), row.created_at_ms, content)
