"""Files and fine-tuning with and without HTTP, for the tests of both."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from support.fakes.authenticator import FixedAuthenticator
from support.finetune.answers import ScriptedAnswers
from support.finetune.ports import (
    FixedModels,
    FixedPrices,
    FixedTerms,
    MemoryAdapterCatalog,
    MemoryReservations,
    SlugOfId,
)
from support.finetune.stack import FinetuneStack, principal
from support.servers.asgi import running
from tokenyard.bootstrap.finetuning import file_and_job_routers
from tokenyard.catalog.store import adapter_bytes
from tokenyard.core.clock import SystemClock
from tokenyard.core.money import Multiplier, PriceStep
from tokenyard.core.principal import AllowedModels
from tokenyard.files.store import file_bytes
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageQuota
from tokenyard.web.errors import install_error_handlers
from tokenyard.webhooks.events import write_event

BOUND_KEY = "ty-acme-other-model"
"""May use one model only, which no test trains."""
BLOCKED_KEY = "ty-acme-blocked"
CHEAP_KEY = "ty-acme-cheap"
"""Pays four fifths of the list price, as its organization's plan says."""
MAX_UPLOAD_BYTES = 4 * 1024 * 1024
FILES_QUOTA_BYTES = 3 * MAX_UPLOAD_BYTES


@pytest.fixture
def stack(database: Database, tmp_path: Path) -> FinetuneStack:
    return FinetuneStack(database, tmp_path)


@dataclass
class Platform:
    """Files and jobs on a real socket, for the real SDK: two tenants, everything else in memory."""

    url: str
    acme: AsyncOpenAI
    rival: AsyncOpenAI
    blobs: BlobStore
    folder: Path
    database: Database
    reservations: MemoryReservations
    answers: ScriptedAnswers


@pytest.fixture
async def platform(database: Database, tmp_path: Path) -> AsyncIterator[Platform]:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    reservations, answers = MemoryReservations(), ScriptedAnswers()
    app = FastAPI()
    install_error_handlers(app)
    bound = msgspec.structs.replace(principal("acme"), models=(AllowedModels("key", "key_acme", ("other-model",)),))
    tenants = {"ty-acme": principal("acme"), "ty-rival": principal("rival"), BOUND_KEY: bound}
    tenants[CHEAP_KEY] = msgspec.structs.replace(principal("acme"), prices=(PriceStep(0, Multiplier(8_000)),))
    tenants[BLOCKED_KEY] = msgspec.structs.replace(principal("acme"), blocked="an invoice is overdue")
    app.state.authenticator = FixedAuthenticator(tenants)
    for router in file_and_job_routers(
        database=database,
        blobs=blobs,
        clock=SystemClock(),
        models=FixedModels(),
        own_models=MemoryAdapterCatalog(database),
        callable_models=FixedModels(),
        prices=FixedPrices(without=["unpriced"]),
        reservations=reservations,
        organizations=SlugOfId(),
        plans=FixedTerms(),
        policy=TrainingPolicy(max_unfinished_per_organization=3),
        max_upload_bytes=MAX_UPLOAD_BYTES,
        quota=StorageQuota(database, FILES_QUOTA_BYTES, file_bytes, adapter_bytes),
        adapters=MemoryAdapterCatalog(database),
        answers=answers,
        events=write_event,
    ):
        app.include_router(router)
    async with running(app) as url:
        base_url = f"{url}/v1"
        async with (
            AsyncOpenAI(api_key="ty-acme", base_url=base_url, max_retries=0) as acme,
            AsyncOpenAI(api_key="ty-rival", base_url=base_url, max_retries=0) as rival,
        ):
            yield Platform(url, acme, rival, blobs, tmp_path / "blobs", database, reservations, answers)
