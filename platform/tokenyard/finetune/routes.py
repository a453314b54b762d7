"""All routes of this slice: files and jobs for tenants, jobs for the operator."""

from fastapi import APIRouter

from tokenyard.core.clock import Clock
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.file_routes import file_router
from tokenyard.finetune.files import FileStore
from tokenyard.finetune.operator_routes import operator_job_router
from tokenyard.finetune.operator_store import JobOperatorStore
from tokenyard.finetune.policy import TrainingPolicy
from tokenyard.finetune.ports import BaseModels, OrganizationNames, Reservations, TrainingPrices
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.tenant_routes import job_router
from tokenyard.finetune.uploads import Uploads
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database


def router(
    *,
    database: Database,
    blobs: BlobStore,
    clock: Clock,
    models: BaseModels,
    prices: TrainingPrices,
    reservations: Reservations,
    organizations: OrganizationNames,
    policy: TrainingPolicy,
    max_upload_bytes: int,
) -> APIRouter:
    """Return the router of files and fine-tuning jobs."""
    files = FileStore(database, clock)
    jobs = JobStore(database, clock, max_unfinished=policy.max_unfinished_per_organization)
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
    routes = APIRouter()
    routes.include_router(file_router(files, Uploads(files, blobs, max_bytes=max_upload_bytes), blobs))
    routes.include_router(job_router(jobs, creation))
    routes.include_router(operator_job_router(JobOperatorStore(database, clock), jobs))
    return routes
