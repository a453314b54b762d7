"""Files and jobs on a real socket, for the real SDK: two tenants, everything else in memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from support.fakes.authenticator import FixedAuthenticator
from support.fakes.finetune_ports import FixedModels, FixedPrices, MemoryReservations, SlugOfId
from support.servers.asgi import running
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal
from tokenyard.finetune.policy import TrainingPolicy
from tokenyard.finetune.routes import router
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.web.errors import install_error_handlers

MAX_UPLOAD_BYTES = 4 * 1024 * 1024


def principal(name: str) -> Principal:
    return Principal(OrganizationId(f"org_{name}"), ProjectId(f"proj_{name}"), ApiKeyId(f"key_{name}"), 1)


@dataclass
class Platform:
    url: str
    acme: AsyncOpenAI
    rival: AsyncOpenAI
    blobs: BlobStore
    folder: Path
    database: Database
    reservations: MemoryReservations


@pytest.fixture
async def platform(database: Database, tmp_path: Path) -> AsyncIterator[Platform]:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    reservations = MemoryReservations()
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticator = FixedAuthenticator({"ty-acme": principal("acme"), "ty-rival": principal("rival")})
    app.include_router(
        router(
            database=database,
            blobs=blobs,
            clock=SystemClock(),
            models=FixedModels(),
            prices=FixedPrices(without=["unpriced"]),
            reservations=reservations,
            organizations=SlugOfId(),
            policy=TrainingPolicy(max_unfinished_per_organization=3),
            max_upload_bytes=MAX_UPLOAD_BYTES,
        )
    )
    async with running(app) as url:
        clients = [AsyncOpenAI(api_key=f"ty-{name}", base_url=f"{url}/v1", max_retries=0) for name in ("acme", "rival")]
        yield Platform(url, *clients, blobs, tmp_path / "blobs", database, reservations)
        for client in clients:
            await client.close()
