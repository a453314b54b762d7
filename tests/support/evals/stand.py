"""Evals on a real socket and a real database, and workers that run them when a test says so."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from openai import AsyncOpenAI
from openai.types import FileObject
from pydantic import SecretStr
from sqlalchemy import func, select

from support.fakes.authenticator import FixedAuthenticator
from support.fakes.clock import FrozenClock
from support.fakes.gateway_ports import BASE
from support.finetune.answers import ScriptedAnswers
from support.finetune.ports import EMBEDDER, SMALL_MODEL, FixedModels
from support.finetune.stack import principal
from support.servers.asgi import running
from tokenyard.bootstrap.evaluation import eval_routers
from tokenyard.core.ids import ProjectId
from tokenyard.core.principal import AllowedModels
from tokenyard.evals.content import EvalCipher
from tokenyard.evals.loops import eval_loops
from tokenyard.evals.operator_store import EvalOperatorStore
from tokenyard.evals.tables import EvalItemRow, EvalRow, EvalRunRow
from tokenyard.evals.work.reading import RunRows
from tokenyard.evals.work.runner import EvalRunner
from tokenyard.files.store import FileStore, file_bytes
from tokenyard.files.tenant_routes import file_router
from tokenyard.files.uploads import Uploads
from tokenyard.finetune.operator_store import files_in_use
from tokenyard.settings import Settings
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageQuota
from tokenyard.web.app import create_app
from tokenyard.web.leases import KeptLease

BOUND_KEY = "ty-acme-other-model"
"""May use one model only, which there is not."""
CHECK = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": "small-model",
    "input": [{"role": "user", "content": "Is {{ sample.output_text }} right? It should be {{ item.answer }}."}],
}
CONFIG = {
    "type": "custom",
    "item_schema": {
        "type": "object",
        "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["question", "answer"],
    },
    "include_sample_schema": True,
}
MESSAGES = {"type": "template", "template": [{"role": "user", "content": "What is {{ item.question }}?"}]}
QUOTA_BYTES = 1024 * 1024


MODELS = FixedModels(SMALL_MODEL, EMBEDDER, BASE)
"""Two that answer, the second one behind a real gateway, and one that makes embeddings."""


def rows(count: int, *, right: int | None = None) -> list[dict[str, Any]]:
    """Return rows of which the first `right` have the answer that is expected."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        said = f"a{number}" if right is None or number < right else "wrong"
        found.append({"item": {"question": f"q{number}", "answer": f"a{number}"}, "sample": {"output_text": said}})
    return found


def items(count: int) -> list[dict[str, Any]]:
    """Return rows without answers."""
    return [{"item": row["item"]} for row in rows(count)]


def given(content: Sequence[Any]) -> dict[str, Any]:
    return {"type": "file_content", "content": list(content)}


def jsonl(content: Sequence[Any]) -> dict[str, Any]:
    return {"type": "jsonl", "source": given(content)}


def completions(content: Sequence[Any], **other: Any) -> dict[str, Any]:
    return {
        "type": "completions",
        "source": given(content),
        "model": "small-model",
        "input_messages": MESSAGES,
        **other,
    }


@dataclass
class EvalsStand:
    """`project` is another project of the same organization, `rival` another organization."""

    database: Database
    folder: Path
    clock: FrozenClock = field(default_factory=FrozenClock)
    answers: ScriptedAnswers = field(default_factory=ScriptedAnswers)

    def __post_init__(self) -> None:
        self.settings = Settings(
            data_dir=self.folder, secret=SecretStr("s" * 32), evals_bytes_per_organization=QUOTA_BYTES
        )
        self.blobs = BlobStore(f"file://{self.folder}/blobs")
        self.files = FileStore(self.database, self.clock, files_in_use)
        cipher = EvalCipher([self.settings.derived_secret("evals")])
        self.store = EvalOperatorStore(
            self.database,
            self.clock,
            cipher,
            quota_bytes=QUOTA_BYTES,
            retention_ms=self.settings.stored_answers_ms,
        )

    def worker(self, owner: str = "worker", *, lease_ms: int = 15_000, **replaced: Any) -> EvalRunner:
        parts: dict[str, Any] = {
            "store": self.store,
            "rows": RunRows(self.files, self.blobs),
            "answers": self.answers,
            "owner": owner,
            "clock": self.clock,
            "lease": KeptLease(lease_ms),
        }
        return EvalRunner(**{**parts, **replaced})

    async def round(self) -> None:
        """Let each loop of a worker go round once."""
        loops = eval_loops(
            owner="worker",
            store=self.store,
            files=self.files,
            blobs=self.blobs,
            answers=self.answers,
            clock=self.clock,
        )
        for loop in loops:
            await loop.step()
        self.clock.advance(1)

    async def stored(self) -> tuple[int, int, int]:
        """Return how many evals, runs and items are in SQL."""
        async with self.database.reading() as session:
            counts = [
                int(await session.scalar(select(func.count()).select_from(row)) or 0)
                for row in (EvalRow, EvalRunRow, EvalItemRow)
            ]
        return counts[0], counts[1], counts[2]

    @asynccontextmanager
    async def served(self) -> AsyncIterator["EvalClients"]:
        quota = StorageQuota(self.database, 64 * 1024 * 1024, file_bytes)
        uploads = Uploads(self.files, self.blobs, {}, max_bytes=32 * 1024 * 1024, quota=quota)
        acme = principal("acme")
        bound = msgspec.structs.replace(acme, models=(AllowedModels("key", "key_acme", ("other-model",)),))
        second = msgspec.structs.replace(acme, project=ProjectId("proj_second"))
        tenants = {"ty-acme": acme, "ty-rival": principal("rival"), "ty-second": second, BOUND_KEY: bound}
        routers = (
            *eval_routers(self.settings, self.database, self.clock, self.files, MODELS),
            file_router(self.files, uploads, self.blobs),
        )
        app = create_app(title="evals", routers=routers, authenticator=FixedAuthenticator(tenants))
        assert isinstance(app, FastAPI)
        async with running(app) as url:
            async with AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:
                yield EvalClients(self, *(client.with_options(api_key=key) for key in tenants))


@dataclass
class EvalClients:
    """What the tests call."""

    stand: EvalsStand
    acme: AsyncOpenAI
    rival: AsyncOpenAI
    project: AsyncOpenAI
    bound: AsyncOpenAI

    async def eval(self, *criteria: Any, client: AsyncOpenAI | None = None, **other: Any) -> str:
        """Create an eval; return its id."""
        fields: dict[str, Any] = {"data_source_config": CONFIG, "testing_criteria": list(criteria or [CHECK]), **other}
        return (await (client or self.acme).evals.create(**fields)).id

    async def run(self, eval_id: str, data_source: Any, **other: Any) -> str:
        """Create a run; return its id."""
        return (await self.acme.evals.runs.create(eval_id, data_source=data_source, **other)).id

    async def upload(self, data: bytes, *, purpose: Any = "evals") -> FileObject:
        return await self.acme.files.create(file=("rows.jsonl", data), purpose=purpose)
