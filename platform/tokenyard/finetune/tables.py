"""Tables of finetune: jobs, their events and checkpoints."""

from sqlalchemy import BigInteger, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, Json, Nano, UnixMs, UnixSeconds
from tokenyard.storage.database import Base


class JobRow(Base):
    """A fine-tuning job: the truth about it, whatever Ray says.

    `state` is a `states.JobState`; `outcome` is the end it is heading for once that is decided. `version` grows with
    every change and fences writers. `slot` is held while the job trains. `lease_until_ms` is also the earliest time of
    the next look. `attempt`, `submitted` and `events_taken` are about the newest attempt; `digest` is its adapter's.
    `lost_attempts` are those that broke off, not those that were paused.
    Before the first attempt, `check_run` is the run that checks the files, and `submitted` is about that.
    `lora` is what its adapter is, None in jobs from before that was noted; one that takes in an adapter as it is,
    without training, has no `hyperparameters`.
    `request_digest` is of the body that was sent with `idempotency_key`. `fair` are `job.FairTags`, `steps` a
    `job.StepProgress`, `machine` is what `planning.estimate` calls the cluster's. `result_file` is there once
    a job that made steps has ended, and where `integrations` (`job.Integration`s) ask for them, `tensorboard_file` and
    `wandb_file`; `wandb` is a `job.WandbSettings`. `evaluation_file` is there once one that measured on held-out rows
    has; `held_out` is what it measured, a `results.held_out.HeldOut`, and `evaluation` a `job.AskedEvaluation` where
    one was asked for.
    `callable_checkpoints` is how many epochs' checkpoints, the last ones, are to be callable. `sweep` is what the
    trials of one sweep have in common, `trial` the place of each among them, and `better_trial` the job whose model was
    published in place of this one's.
    """

    __tablename__ = "finetune_jobs"
    __table_args__ = (
        Index("ix_finetune_jobs_list", "organization", "created_at_ms", "id"),
        Index("ix_finetune_jobs_folders", "folder_deleted_ms", "state", "finished_at"),
        Index("ix_finetune_jobs_due", "state", "lease_until_ms"),
        Index("ix_finetune_jobs_idempotency", "organization", "idempotency_key", unique=True),
        Index("ix_finetune_jobs_started", "started_at_ms"),
        Index("ix_finetune_jobs_sweep", "sweep", "trial"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    key: Mapped[Id]
    organization_slug: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[UnixMs]
    finished_at: Mapped[UnixSeconds | None]

    model: Mapped[str] = mapped_column(String(128))
    suffix: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    training_file: Mapped[Id]
    validation_file: Mapped[Id | None]
    method: Mapped[str] = mapped_column(String(24))
    hyperparameters: Mapped[Json]
    lora: Mapped[Json | None]
    details: Mapped[Json]  # the client's metadata
    has_details: Mapped[bool]
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    publish_if_worse: Mapped[bool]
    evaluation: Mapped[Json | None]
    integrations: Mapped[Json | None]
    wandb: Mapped[Json | None]
    callable_checkpoints: Mapped[int] = mapped_column(Integer, default=0)
    sweep: Mapped[Id | None]
    trial: Mapped[int] = mapped_column(Integer, default=0)

    price: Mapped[Id]
    reserved_tokens: Mapped[Count]
    reserved_amount: Mapped[Nano]
    bound_tokens: Mapped[Count | None]  # what was known of the tokens before they were counted
    admitted_at_ms: Mapped[UnixMs]

    state: Mapped[str] = mapped_column(String(24))
    outcome: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[Json | None]
    trained_tokens: Mapped[Count | None]
    adapter: Mapped[Id | None]
    check_run: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    lost_attempts: Mapped[int] = mapped_column(Integer)
    submitted: Mapped[bool]
    events_taken: Mapped[int] = mapped_column(Integer)
    resume_url: Mapped[str | None] = mapped_column(String(512))
    deadline_ms: Mapped[UnixMs | None]
    digest: Mapped[str | None] = mapped_column(String(64))
    waits_for: Mapped[str | None] = mapped_column(Text)
    folder_deleted_ms: Mapped[UnixMs | None]
    started_at_ms: Mapped[UnixMs | None]
    machine: Mapped[str | None] = mapped_column(String(64))
    steps: Mapped[Json | None]
    result_file: Mapped[Id | None]
    tensorboard_file: Mapped[Id | None]
    wandb_file: Mapped[Id | None]
    held_out: Mapped[Json | None]
    evaluation_file: Mapped[Id | None]
    better_trial: Mapped[Id | None]

    fair: Mapped[Json | None]
    slot: Mapped[int | None] = mapped_column(Integer, unique=True)
    version: Mapped[int] = mapped_column(Integer)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until_ms: Mapped[UnixMs]


class EventRow(Base):
    """One event of a job. `source` says where it came from, so that it is written once."""

    __tablename__ = "finetune_events"
    __table_args__ = (UniqueConstraint("job", "source"), Index("ix_finetune_events_list", "job", "number"))

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    job: Mapped[Id]
    source: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(BigInteger)  # order within the job
    created_at: Mapped[UnixSeconds]
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[Json]


class CheckpointRow(Base):
    """The end of an epoch. `due_ms` is when a worker looks at it next that is to make it callable; None: there is
    nothing to be done. Until then it is leased to `lease_owner`. `adapter` is the one that answers for it, from when it
    can be called until a later checkpoint took its place.
    """

    __tablename__ = "finetune_checkpoints"
    __table_args__ = (UniqueConstraint("job", "step_number"), Index("ix_finetune_checkpoints_due", "due_ms"))

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    job: Mapped[Id]
    step_number: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[UnixSeconds]
    metrics: Mapped[Json]
    adapter: Mapped[Id | None]
    due_ms: Mapped[UnixMs | None]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
