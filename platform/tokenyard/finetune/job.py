"""A fine-tuning job as a value, and its row."""

from enum import StrEnum

import msgspec

from tokenyard.core.adapters import AdapterRef, FineTunedName
from tokenyard.core.ids import AdapterId, ApiKeyId, FileId, JobId, OrganizationId, PriceId, ProjectId, SweepId
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import Hyperparameters, LoraSettings
from tokenyard.finetune.results.held_out import HeldOut
from tokenyard.finetune.states import JobOutcome, JobState, JobStatus, outward
from tokenyard.finetune.tables import JobRow


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed, in words for its tenant."""

    code: str
    message: str
    param: str | None = None


class Integration(StrEnum):
    """What else shows how a job went."""

    TENSORBOARD = "tensorboard"  # a file of its events
    WANDB = "wandb"  # a file of a run


class WandbSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where its tenant means the run of Weights & Biases to appear. Without a `name` it has the job's."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()


class StepProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far training has come, as the events of its newest attempt say: which step was told first, which last, of how
    many, and when (unix seconds).
    """

    first: int
    first_at: int
    last: int
    last_at: int
    total: int


class AskedEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What base and tuned model are asked: the first `rows` of the validation file, and the `general` questions."""

    rows: int = 0
    general: bool = False


class FairTags(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual times of `planning.fair_share`: when it came into the queue, with what tag it started, and when.

    `weight` was its organization's as it started, `weights` that of all who waited or trained.
    """

    arrived: int
    start: int = 0
    time: int = 0
    weight: int = 1
    weights: int = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a job. See `tables.JobRow` for the fields that the worker keeps its progress in."""

    id: JobId
    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    organization_slug: str
    created_at_ms: int
    model: str
    suffix: str
    seed: int
    training_file: FileId
    method: str
    hyperparameters: Hyperparameters | None
    price: PriceId
    reserved_tokens: int
    reserved_amount: NanoDollars
    lora: LoraSettings | None = None
    validation_file: FileId | None = None
    metadata: dict[str, str] = {}
    idempotency_key: str | None = None
    request_digest: str | None = None
    bound_tokens: int | None = None
    publish_if_worse: bool = False
    evaluation: AskedEvaluation | None = None
    integrations: tuple[Integration, ...] = ()
    wandb: WandbSettings | None = None
    callable_checkpoints: int = 0
    sweep: SweepId | None = None
    trial: int = 0

    state: JobState = JobState.CREATING
    outcome: JobOutcome | None = None
    error: JobError | None = None
    finished_at: int | None = None
    admitted_at_ms: int = 0
    trained_tokens: int | None = None
    adapter: AdapterId | None = None
    digest: str | None = None
    check_run: int = 1
    attempt: int = 0
    lost_attempts: int = 0
    submitted: bool = False
    events_taken: int = 0
    resume_url: str | None = None
    deadline_ms: int | None = None
    waits_for: str | None = None
    slot: int | None = None
    started_at_ms: int | None = None
    machine: str | None = None
    steps: StepProgress | None = None
    result_file: FileId | None = None
    tensorboard_file: FileId | None = None
    wandb_file: FileId | None = None
    held_out: HeldOut | None = None
    evaluation_file: FileId | None = None
    better_trial: JobId | None = None
    fair: FairTags | None = None
    version: int = 0

    @property
    def status(self) -> JobStatus:
        return outward(self.state, self.outcome)

    @property
    def starts_from(self) -> AdapterRef | None:
        """The fine-tuned model with whose weights training begins."""
        return None if self.lora is None else self.lora.start

    @property
    def takes_in(self) -> bool:
        """Whether it trains nothing and takes in an adapter as it is."""
        return self.hyperparameters is None

    @property
    def files(self) -> dict[str, FileId]:
        """The files it needs, by the field of the request that names them."""
        files = {"training_file": self.training_file}
        return files if self.validation_file is None else files | {"validation_file": self.validation_file}

    @property
    def token_rate(self) -> NanoDollars:
        """What each token costs that it trains on; what it reserved is that for as many as it may."""
        return NanoDollars(self.reserved_amount // self.reserved_tokens)

    @property
    def share_tokens(self) -> int:
        """The tokens that count in its organization's share: those it may train while it does, then those it did.

        A failed job is not paid for, but the others waited for the steps that it made; so they did of a paused one.
        """
        if self.outcome is JobOutcome.FAILED or self.state is JobState.PAUSED:
            return self.reserved_tokens * self.steps.last // max(1, self.steps.total) if self.steps is not None else 0
        return self.reserved_tokens if self.trained_tokens is None else self.trained_tokens

    @property
    def model_name(self) -> FineTunedName | None:
        """The name of its model, known once it has an adapter."""
        if self.adapter is None:
            return None
        return FineTunedName(self.model, self.organization_slug, self.suffix, self.adapter)

    @property
    def published_model(self) -> FineTunedName | None:
        """The name of its model, once that is live; of a sweep, only the best trial has one."""
        is_kept = self.outcome is JobOutcome.SUCCEEDED and self.better_trial is None
        return self.model_name if is_kept else None

    @property
    def leaves_checkpoints(self) -> bool:
        """Whether there are checkpoints that can be called whatever becomes of the job, or are about to be."""
        return self.callable_checkpoints > 0 and self.adapter is not None

    @property
    def last_step(self) -> int | None:
        """The step whose checkpoint is its model itself; None where that is not sure before the end."""
        stops_early = self.hyperparameters is None or self.hyperparameters.early_stopping_patience is not None
        return None if stops_early or self.steps is None else self.steps.total


_PROGRESS = (
    *("state", "outcome", "finished_at", "admitted_at_ms", "trained_tokens", "adapter", "digest", "attempt"),
    "lost_attempts",
    *("submitted", "events_taken", "resume_url", "deadline_ms", "waits_for", "slot", "idempotency_key"),
    *("started_at_ms", "machine", "result_file", "tensorboard_file", "wandb_file", "evaluation_file", "better_trial"),
    *("reserved_tokens", "reserved_amount"),
    "check_run",
)
_STRUCTURED = ("error", "steps", "fair", "held_out")
_ASKED = ("lora", "evaluation", "wandb")
_FIXED = (
    *("id", "organization", "project", "key", "organization_slug", "created_at_ms", "model", "suffix", "seed"),
    *("training_file", "validation_file", "method", "price", "bound_tokens", "request_digest"),
    *("publish_if_worse", "callable_checkpoints", "sweep", "trial"),
)


def progress_columns(job: Job) -> dict[str, object]:
    """Return the columns that change in a job's life."""
    columns: dict[str, object] = {name: getattr(job, name) for name in _PROGRESS}
    return columns | {name: msgspec.to_builtins(getattr(job, name)) for name in _STRUCTURED}


def row_of(job: Job, *, lease_until_ms: int) -> JobRow:
    return JobRow(
        **{name: getattr(job, name) for name in _FIXED},
        **progress_columns(job),
        hyperparameters=msgspec.to_builtins(job.hyperparameters) or {},
        **{name: msgspec.to_builtins(getattr(job, name)) for name in _ASKED},
        integrations=list(job.integrations),
        details=job.metadata,
        has_details=bool(job.metadata),
        version=job.version,
        lease_owner=None,
        lease_until_ms=lease_until_ms,
    )


def job_of(row: JobRow) -> Job:
    found = {name: getattr(row, name) for name in (*_FIXED, *_PROGRESS, *_STRUCTURED, *_ASKED, "version")}
    found |= {"metadata": row.details, "hyperparameters": row.hyperparameters or None}
    return msgspec.convert(found | {"integrations": row.integrations or ()}, Job)
