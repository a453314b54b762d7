"""Joins files and fine-tuning, each of which needs something of the other, to routes and loops."""

from fastapi import APIRouter

from tokenyard.core.clock import Clock
from tokenyard.core.evaluation.askable import CallableModels
from tokenyard.core.money import PriceLookup
from tokenyard.core.training import TrainingResources
from tokenyard.files.ports import PurposeRule
from tokenyard.files.store import FileStore
from tokenyard.files.tenant_routes import file_router
from tokenyard.files.uploads import Uploads
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.grader_runs.tenant_routes import grader_router
from tokenyard.finetune.methods.adapter import ADAPTER, check_adapter_upload
from tokenyard.finetune.methods.dataset import check_upload
from tokenyard.finetune.operator_routes import operator_job_router
from tokenyard.finetune.operator_store import JobOperatorStore, files_in_use
from tokenyard.finetune.pausing import JobPausing
from tokenyard.finetune.ports import (
    LiveAdapters,
    ModelAnswers,
    OrganizationSlugs,
    OwnAdapters,
    TrainableModels,
    TrainingPlans,
    TrainingReservations,
)
from tokenyard.finetune.ray_jobs.tenant_routes import ray_jobs_router
from tokenyard.finetune.results.tenant_routes import adapter_router
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.steps.starting import StartingPoints
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.sweeps.creation import SweepCreation
from tokenyard.finetune.sweeps.store import SweepStore
from tokenyard.finetune.sweeps.tenant_routes import sweep_router
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.settings import Settings
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database, EventLog
from tokenyard.storage.quota import StorageQuota

UPLOAD_RULES = {
    "fine-tune": PurposeRule(".jsonl", "a training file", check_upload),
    ADAPTER: PurposeRule(".safetensors", "the weights of an adapter", check_adapter_upload),
}


def training_policy(settings: Settings) -> TrainingPolicy:
    """Return the policy that gateway and worker share."""
    return TrainingPolicy(
        max_running=settings.effective_training_max_running,
        autoscaled=settings.training_autoscaled,
        max_running_per_organization=settings.training_max_running_per_organization,
        quantized_models=frozenset(settings.training_quantized_models),
        resources=TrainingResources(
            num_workers=settings.training_workers,
            cpus=settings.training_num_cpus,
            gpus=settings.training_num_gpus,
            strategy=settings.training_strategy,
            timeout_s=settings.training_timeout_s,
        ),
    )


def file_and_job_routers(
    *,
    database: Database,
    blobs: BlobStore,
    clock: Clock,
    models: TrainableModels,
    own_models: OwnAdapters,
    callable_models: CallableModels,
    prices: PriceLookup,
    reservations: TrainingReservations,
    organizations: OrganizationSlugs,
    plans: TrainingPlans,
    policy: TrainingPolicy,
    max_upload_bytes: int,
    quota: StorageQuota,
    adapters: LiveAdapters,
    answers: ModelAnswers,
    events: EventLog,
    adapter_downloads: bool = True,
) -> list[APIRouter]:
    """Return the routes of files and jobs for tenants, and of jobs for the operator."""
    files = FileStore(database, clock, files_in_use)
    jobs = JobStore(database, clock, files, events, max_unfinished=policy.max_unfinished_per_organization)
    operator_store = JobOperatorStore(database, clock, events)
    uploads = Uploads(files, blobs, UPLOAD_RULES, max_bytes=max_upload_bytes, quota=quota)
    creation = JobCreation(
        jobs=jobs,
        files=files,
        models=models,
        callable_models=callable_models,
        prices=prices,
        reservations=reservations,
        organizations=organizations,
        plans=plans,
        policy=policy,
        quota=quota,
        past=operator_store.past_training,
        starts=StartingPoints(own_models, blobs, models),
        clock=clock,
    )
    pausing = JobPausing(jobs, policy, clock)
    return [
        file_router(files, uploads, blobs),
        job_router(jobs, creation, pausing, own_models),
        adapter_router(jobs, adapters, blobs, allowed=adapter_downloads),
        ray_jobs_router(jobs, creation),
        sweep_router(SweepStore(database, clock, events), SweepCreation(creation)),
        grader_router(answers),
        operator_job_router(operator_store, jobs, pausing),
    ]
