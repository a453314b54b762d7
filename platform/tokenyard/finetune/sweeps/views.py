"""Sweeps as the API shows them."""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from pydantic import BaseModel

from tokenyard.core.money import NanoDollars, to_dollars
from tokenyard.core.training import deciding_figure
from tokenyard.finetune.job import Job
from tokenyard.finetune.planning.estimate import Estimate
from tokenyard.finetune.states import FINISHED, JobStatus
from tokenyard.finetune.sweeps.sweep import Sweep, SweepStatus
from tokenyard.finetune.views import EstimateView, JobErrorView, model_of
from tokenyard.web.pages import Identified


class TriedHyperparametersView(BaseModel, from_attributes=True):
    """Those of which a sweep may try several values."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class TrialFigureView(BaseModel):
    """What decides between trials: the loss on the validation file, or with reinforcement fine-tuning the reward."""

    figure: Literal["loss", "reward"]
    tuned: float
    base: float


class TrialView(BaseModel):
    """One job of a sweep; `id` is the job's. `cost_dollars` is what it is charged, known once it has ended."""

    object: Literal["fine_tuning.sweep.trial"] = "fine_tuning.sweep.trial"
    id: str
    status: JobStatus
    hyperparameters: TriedHyperparametersView
    held_out: TrialFigureView | None
    fine_tuned_model: str | None
    max_cost_dollars: str
    cost_dollars: str | None
    error: JobErrorView | None

    @classmethod
    def of(cls, job: Job) -> "TrialView":
        cost = _cost(job)
        return cls(
            id=job.id,
            status=job.status,
            hyperparameters=TriedHyperparametersView.model_validate(job.hyperparameters),
            held_out=_figure(job),
            fine_tuned_model=model_of(job),
            max_cost_dollars=to_dollars(job.reserved_amount),
            cost_dollars=None if cost is None else to_dollars(cost),
            error=JobErrorView.model_validate(job.error) if job.error is not None and job.status == "failed" else None,
        )


class SweepView(Identified):
    """Several jobs as one. OpenAI's API has no counterpart.

    `best_trial` is the job whose model was published. `cost_dollars` is what the trials that have ended are charged.
    """

    object: Literal["fine_tuning.sweep"] = "fine_tuning.sweep"
    created_at: int
    finished_at: int | None
    model: str
    training_file: str
    validation_file: str | None
    status: SweepStatus
    best_trial: str | None
    fine_tuned_model: str | None
    max_cost_dollars: str
    cost_dollars: str
    trials: list[TrialView]

    @classmethod
    def of(cls, sweep: Sweep) -> "SweepView":
        first, kept = sweep.trials[0], sweep.kept
        model = None if kept is None else model_of(kept)
        return cls(
            id=sweep.id,
            created_at=first.created_at_ms // 1000,
            finished_at=max(trial.finished_at or 0 for trial in sweep.trials) if sweep.has_ended else None,
            model=first.model if first.starts_from is None else first.starts_from.name,
            training_file=first.training_file,
            validation_file=first.validation_file,
            status=sweep.status,
            best_trial=kept.id if kept is not None and model is not None else None,
            fine_tuned_model=model,
            max_cost_dollars=to_dollars(NanoDollars(sum(trial.reserved_amount for trial in sweep.trials))),
            cost_dollars=to_dollars(NanoDollars(sum(_cost(trial) or 0 for trial in sweep.trials))),
            trials=[TrialView.of(trial) for trial in sweep.trials],
        )


class SweepEstimateView(BaseModel):
    """What a sweep would take: each trial, and all together.

    `expected_seconds` are those of training one trial after the other, without any waiting.
    """

    object: Literal["fine_tuning.sweep.estimate"] = "fine_tuning.sweep.estimate"
    model: str
    max_tokens: int
    max_cost_dollars: str
    expected_tokens: int | None
    expected_cost_dollars: str | None
    expected_seconds: int | None
    trials: list[EstimateView]

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> "SweepEstimateView":
        tokens = [each.expected_tokens for each in estimates if each.expected_tokens is not None]
        costs = [each.expected_cost for each in estimates if each.expected_cost is not None]
        seconds = [each.seconds for each in estimates if each.seconds is not None]
        is_known = len(seconds) == len(estimates)
        return cls(
            model=estimates[0].job.model,
            max_tokens=sum(each.job.reserved_tokens for each in estimates),
            max_cost_dollars=to_dollars(NanoDollars(sum(each.job.reserved_amount for each in estimates))),
            expected_tokens=sum(tokens) if is_known else None,
            expected_cost_dollars=to_dollars(NanoDollars(sum(costs))) if is_known else None,
            expected_seconds=ceil(sum(seconds)) if is_known else None,
            trials=[EstimateView.of(each) for each in estimates],
        )


def _cost(job: Job) -> NanoDollars | None:
    if job.state not in FINISHED:
        return None
    return NanoDollars(job.token_rate * (job.trained_tokens or 0))


def _figure(job: Job) -> TrialFigureView | None:
    if job.held_out is None:
        return None
    name = deciding_figure(job.held_out.tuned)
    return TrialFigureView.model_validate(
        {"figure": name, "tuned": job.held_out.tuned[name], "base": job.held_out.base[name]}
    )
