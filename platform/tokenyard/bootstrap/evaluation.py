"""Joins evals with files, models and what asks models, to routes and loops."""

from collections.abc import Sequence

from fastapi import APIRouter

from tokenyard.core.clock import Clock
from tokenyard.core.evaluation.askable import CallableModels
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.loops import eval_loops
from tokenyard.evals.operator_store import EvalOperatorStore
from tokenyard.evals.ports import EvalAnswers, RowsFiles
from tokenyard.evals.runs.creation import EvalRunCreation
from tokenyard.evals.runs.store import EvalRunStore
from tokenyard.evals.runs.tenant_routes import eval_run_router
from tokenyard.evals.store import EvalStore
from tokenyard.evals.tenant_routes import eval_router
from tokenyard.settings import Settings
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop


def eval_routers(
    settings: Settings, database: Database, clock: Clock, files: RowsFiles, models: CallableModels
) -> Sequence[APIRouter]:
    """Return the routes of evals and their runs for tenants."""
    cipher, quota_bytes = _cipher(settings), settings.evals_bytes_per_organization
    evals = EvalStore(database, clock, cipher, quota_bytes=quota_bytes)
    runs = EvalRunStore(database, clock, cipher, quota_bytes=quota_bytes, retention_ms=settings.stored_answers_ms)
    creation = EvalRunCreation(evals, runs, files, models, clock)
    return eval_router(evals), eval_run_router(evals, runs, creation)


def eval_worker_loops(
    settings: Settings,
    database: Database,
    clock: Clock,
    *,
    owner: str,
    files: RowsFiles,
    blobs: BlobStore,
    answers: EvalAnswers,
) -> list[Loop]:
    """Return the loops that work on runs; no two workers share `owner`."""
    store = EvalOperatorStore(
        database,
        clock,
        _cipher(settings),
        quota_bytes=settings.evals_bytes_per_organization,
        retention_ms=settings.stored_answers_ms,
    )
    return eval_loops(owner=owner, store=store, files=files, blobs=blobs, answers=answers, clock=clock)


def _cipher(settings: Settings) -> EvalCipher:
    return EvalCipher([settings.derived_secret("evals")])
