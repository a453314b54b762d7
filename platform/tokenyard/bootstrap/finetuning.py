"""Joins files and fine-tuning, each of which needs something of the other, to routes and loops."""

from fastapi import APIRouter

from tokenyard.core.clock import Clock
from tokenyard.core.money import PriceLookup
from tokenyard.core.training import TrainingResources
from tokenyard.files.store import FileStore
from tokenyard.files.tenant_routes import file_router
from tokenyard.files.uploads import Uploads
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.methods.dataset import check_upload
from tokenyard.finetune.operator_routes import operator_job_router
from tokenyard.finetune.operator_store import JobOperatorStore, files_in_use
from tokenyard.finetune.ports import OrganizationSlugs, TrainableModels, TrainingReservations
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.settings import Settings
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database


def training_policy(settings: Settings) -> TrainingPolicy:
    """Return the policy that gateway and worker share."""
    return TrainingPolicy(
        resources=TrainingResources(
            cpus=settings.training_num_cpus, gpus=settings.training_num_gpus, timeout_s=settings.training_timeout_s
        )
    )


def file_and_job_routers(
    *,
    database: Database,
    blobs: BlobStore,
    clock: Clock,
    models: TrainableModels,
    prices: PriceLookup,
    reservations: TrainingReservations,
    organizations: OrganizationSlugs,
    policy: TrainingPolicy,
    max_upload_bytes: int,
) -> list[APIRouter]:
    """Return the routes of files and jobs for tenants, and of jobs for the operator."""
    files = FileStore(database, clock, files_in_use)
    jobs = JobStore(database, clock, files, max_unfinished=policy.max_unfinished_per_organization)
    creation = JobCreation(
        jobs=jobs,
        files=files,
        models=models,
        prices=prices,
        reservations=reservations,
        organizations=organizations,
        policy=policy,
        clock=clock,
    )
    return [
        file_router(files, Uploads(files, blobs, check_upload, max_bytes=max_upload_bytes), blobs),
        job_router(jobs, creation),
        operator_job_router(JobOperatorStore(database, clock), jobs),
    ]
