"""Jobs, their events and checkpoints as the API shows them."""

from collections.abc import Container
from math import ceil
from typing import Annotated, Literal, TypeVar

import msgspec
from pydantic import BaseModel, Field

from tokenyard.core.money import to_dollars, training_cost
from tokenyard.core.training import LoraSettings, Schedule
from tokenyard.finetune.job import Integration, Job
from tokenyard.finetune.methods.method import Json
from tokenyard.finetune.planning.estimate import Estimate, finish_of
from tokenyard.finetune.states import JobState, JobStatus
from tokenyard.finetune.tables import CheckpointRow
from tokenyard.web.pages import Identified

_Value = TypeVar("_Value")
OnlyIfSet = Annotated[_Value | None, Field(exclude_if=lambda value: value is None)]


class JobErrorView(BaseModel, from_attributes=True):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class HyperparametersView(BaseModel, from_attributes=True):
    """OpenAI's, with every "auto" decided, and those of ours that are not the defaults."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    rank: OnlyIfSet[int] = None
    alpha: OnlyIfSet[int] = None
    target_modules: OnlyIfSet[list[str]] = None
    use_rslora: OnlyIfSet[bool] = None
    dropout: OnlyIfSet[float] = None
    warmup_ratio: OnlyIfSet[float] = None
    lr_scheduler_type: OnlyIfSet[Schedule] = None
    weight_decay: OnlyIfSet[float] = None
    max_grad_norm: OnlyIfSet[float] = None
    early_stopping_patience: OnlyIfSet[int] = None
    packing: OnlyIfSet[bool] = None
    group_by_length: OnlyIfSet[bool] = None


class MethodSettingsView(BaseModel):
    """How a method is set."""

    hyperparameters: HyperparametersView


class DpoHyperparametersView(HyperparametersView):
    beta: float


class DpoSettingsView(BaseModel):
    hyperparameters: DpoHyperparametersView


class MethodView(BaseModel):
    """OpenAI's method object: the settings stand under the method's name."""

    type: Literal["supervised"] = "supervised"
    supervised: MethodSettingsView


class DpoMethodView(BaseModel):
    """The method that learns from preferences."""

    type: Literal["dpo"] = "dpo"
    dpo: DpoSettingsView


class ReinforcementHyperparametersView(HyperparametersView):
    num_generations: int
    max_completion_length: int
    temperature: float
    beta: float


class ReinforcementSettingsView(BaseModel):
    grader: Json
    hyperparameters: ReinforcementHyperparametersView


class ReinforcementMethodView(BaseModel):
    """The method that learns from what a grader says of the model's own answers."""

    type: Literal["reinforcement"] = "reinforcement"
    reinforcement: ReinforcementSettingsView


class NoHyperparametersView(BaseModel):
    """OpenAI shows them in this place for supervised fine-tuning only."""


class LoraView(BaseModel, from_attributes=True):
    """What is used of an adapter's config."""

    rank: int
    alpha: int
    target_modules: list[str]
    use_rslora: bool


class AdapterMethodView(BaseModel):
    """The method that takes in an adapter which is there already."""

    type: Literal["adapter"] = "adapter"
    adapter: LoraView


AnyMethodView = MethodView | DpoMethodView | ReinforcementMethodView | AdapterMethodView


class EvaluationView(BaseModel, from_attributes=True):
    """What base and tuned model are asked once the job has succeeded."""

    rows: int
    general: bool


class WandbView(BaseModel, from_attributes=True):
    project: str
    name: str | None
    entity: str | None
    tags: list[str]


class IntegrationView(BaseModel):
    type: Integration
    wandb: OnlyIfSet[WandbView] = None

    @classmethod
    def all_of(cls, job: Job) -> "list[IntegrationView]":
        wandb = None if job.wandb is None else WandbView.model_validate(job.wandb)
        return [cls(type=one, wandb=wandb if one is Integration.WANDB else None) for one in job.integrations]


class JobView(Identified):
    """OpenAI's job object."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: JobStatus
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: JobErrorView | None
    hyperparameters: HyperparametersView | NoHyperparametersView
    method: AnyMethodView
    seed: int
    estimated_finish: int | None = None
    integrations: list[IntegrationView]
    metadata: dict[str, str] | None
    publish_if_worse: OnlyIfSet[bool] = None
    evaluation: OnlyIfSet[EvaluationView] = None
    callable_checkpoints: OnlyIfSet[int] = None
    sweep: OnlyIfSet[str] = None

    @classmethod
    def of(cls, job: Job) -> "JobView":
        hyperparameters, method = _work(job)
        return cls(
            id=job.id,
            created_at=job.created_at_ms // 1000,
            finished_at=job.finished_at,
            model=job.model if job.starts_from is None else job.starts_from.name,
            fine_tuned_model=model_of(job),
            organization_id=job.organization,
            status=job.status,
            training_file=job.training_file,
            validation_file=job.validation_file,
            result_files=[
                file
                for file in (job.result_file, job.tensorboard_file, job.wandb_file, job.evaluation_file)
                if file is not None
            ],
            trained_tokens=job.trained_tokens if job.finished_at is not None else None,
            error=_error(job) if job.status == "failed" else None,
            hyperparameters=hyperparameters,
            method=method,
            seed=job.seed,
            integrations=IntegrationView.all_of(job),
            estimated_finish=finish_of(job),
            metadata=job.metadata or None,
            publish_if_worse=job.publish_if_worse or None,
            evaluation=None if job.evaluation is None else EvaluationView.model_validate(job.evaluation),
            callable_checkpoints=job.callable_checkpoints or None,
            sweep=job.sweep,
        )


class EstimateView(BaseModel):
    """What a job would take. OpenAI's API has no counterpart.

    `max_tokens` and `max_cost_dollars` are what its creation would reserve, and it never costs more. What is expected
    follows from earlier jobs of the model on the same kind of machine, and null is not known; `expected_seconds` are
    those of training, without any waiting. A grader that asks models makes `max_grader_requests`, each charged as any
    request of the key is.
    """

    object: Literal["fine_tuning.job.estimate"] = "fine_tuning.job.estimate"
    model: str
    hyperparameters: HyperparametersView | NoHyperparametersView
    method: AnyMethodView
    steps: int
    max_grader_requests: OnlyIfSet[int] = None
    max_tokens: int
    max_cost_dollars: str
    expected_tokens: int | None
    expected_cost_dollars: str | None
    expected_seconds: int | None
    price_per_million_tokens_dollars: str

    @classmethod
    def of(cls, estimate: Estimate) -> "EstimateView":
        hyperparameters, method = _work(estimate.job)
        return cls(
            model=estimate.job.model,
            hyperparameters=hyperparameters,
            method=method,
            steps=estimate.steps,
            max_tokens=estimate.job.reserved_tokens,
            max_cost_dollars=to_dollars(estimate.job.reserved_amount),
            max_grader_requests=estimate.questions or None,
            expected_tokens=estimate.expected_tokens,
            expected_cost_dollars=None if estimate.expected_cost is None else to_dollars(estimate.expected_cost),
            expected_seconds=None if estimate.seconds is None else ceil(estimate.seconds),
            price_per_million_tokens_dollars=to_dollars(training_cost(estimate.price, 1_000_000)),
        )


class OperatorJobView(JobView):
    """A job with what the platform knows besides; `reserved_amount` in nano-dollars."""

    project_id: str
    api_key_id: str
    organization_slug: str
    state: JobState
    attempt: int
    waits_for: str | None
    price: str
    reserved_tokens: int
    reserved_amount: int
    adapter: str | None
    internal_error: JobErrorView | None

    @classmethod
    def of(cls, job: Job) -> "OperatorJobView":
        return cls(
            **dict(JobView.of(job)),
            project_id=job.project,
            api_key_id=job.key,
            organization_slug=job.organization_slug,
            state=job.state,
            attempt=job.attempt,
            waits_for=job.waits_for,
            price=job.price,
            reserved_tokens=job.reserved_tokens,
            reserved_amount=job.reserved_amount,
            adapter=job.adapter,
            internal_error=_error(job),
        )


def model_of(job: Job) -> str | None:
    """Return the name of the model that a job made, as soon as it says that it has succeeded."""
    name = job.published_model if job.status == "succeeded" else None
    return None if name is None else str(name)


def _work(job: Job) -> tuple[HyperparametersView | NoHyperparametersView, AnyMethodView]:
    if job.takes_in:
        return NoHyperparametersView(), AdapterMethodView(adapter=LoraView.model_validate(job.lora))
    if job.method == "dpo":
        settings = DpoSettingsView(hyperparameters=DpoHyperparametersView.model_validate(_all_settings(job)))
        return NoHyperparametersView(), DpoMethodView(dpo=settings)
    if job.method == "reinforcement":
        shown = _all_settings(job)
        learning = ReinforcementHyperparametersView.model_validate(shown)
        reinforcement = ReinforcementSettingsView.model_validate({**shown, "hyperparameters": learning})
        return NoHyperparametersView(), ReinforcementMethodView(reinforcement=reinforcement)
    hyperparameters = HyperparametersView.model_validate(_all_settings(job))
    return hyperparameters, MethodView(supervised=MethodSettingsView(hyperparameters=hyperparameters))


def _all_settings(job: Job) -> Json:
    """Return how training and its adapter are set, as far as that differs from the defaults."""
    lora, plain = job.lora or LoraSettings(), LoraSettings()
    names = ("rank", "alpha", "target_modules", "use_rslora", "dropout")
    asked = {name: getattr(lora, name) for name in names if getattr(lora, name) != getattr(plain, name)}
    return {**msgspec.to_builtins(job.hyperparameters), **asked}


def _error(job: Job) -> JobErrorView | None:
    return JobErrorView.model_validate(job.error) if job.error is not None else None


class EventView(Identified, from_attributes=True):
    """OpenAI's event object."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: Json


class AdapterFileView(Identified):
    """A file of a model that a job made; its `id` is its name."""

    object: Literal["fine_tuning.job.adapter_file"] = "fine_tuning.job.adapter_file"
    bytes: int


class CheckpointView(Identified):
    """OpenAI's checkpoint object. `fine_tuned_model_checkpoint` is a model where `callable` says so, and otherwise only
    a name: a job keeps as many of its last checkpoints as `callable_checkpoints` asked for, and that of the last step
    is the model itself.
    """

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]
    fine_tuning_job_id: str
    callable: OnlyIfSet[Literal[True]] = None

    @classmethod
    def of(cls, row: CheckpointRow, job: Job, can_be_called: Container[str]) -> "CheckpointView":
        model = job.model_name or f"ft:{job.model}"
        name = f"{model}:ckpt-step-{row.step_number}"
        return cls(
            id=row.id,
            created_at=row.created_at,
            fine_tuned_model_checkpoint=name,
            callable=True if name in can_be_called else None,
            step_number=row.step_number,
            metrics={"step": row.step_number, **row.metrics},
            fine_tuning_job_id=row.job,
        )
