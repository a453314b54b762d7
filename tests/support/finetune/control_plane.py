"""The real control plane on a socket, for commands that run as processes; only the cluster trains nothing."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from redis.asyncio import Redis

from support.fakes.chat_answers import ChatAnswers
from support.finetune.ports import FixedModels, FixedPrices
from support.finetune.rows import rows
from support.finetune.stack import POLICY, FinetuneStack
from support.servers.asgi import running
from support.tenancy_stand import tenancy_outbox
from tokenyard.bootstrap.finetuning import file_and_job_routers
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.job import Job
from tokenyard.storage.database import Base, Database
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.operator_routes import operator_router as tenancy_router
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.web.errors import install_error_handlers
from tokenyard.webhooks.events import write_event

LIMIT_S = 120.0
BIN = Path(sys.executable).parent


async def tell_no_one(_organization: OrganizationId) -> None:
    """Listen for new organizations."""


@dataclass
class ControlPlane:
    """The gateway's control plane, its worker's rounds, and the keys of operator and tenant."""

    url: str
    stack: FinetuneStack
    admin_key: str
    tenant_key: str
    organization: str
    dataset: Path
    answers: ChatAnswers

    async def train(self, *arguments: str, **environment: str) -> Process:
        """Start `tokenyard-train` on the data set."""
        fixed = ("--model", "small-model", "--training-file", str(self.dataset), "--base-url", self.url)
        return await self.command("tokenyard-train", *fixed, *arguments, **environment)

    async def command(self, program: str, *arguments: str, **environment: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOKENYARD_")}
        return await asyncio.create_subprocess_exec(
            str(BIN / program), *arguments, env=clean | environment, stdout=PIPE, stderr=STDOUT
        )

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Let the worker go round until `condition` holds."""
        async with asyncio.timeout(LIMIT_S):
            while not await condition():
                await self.stack.round()
                await asyncio.sleep(0.02)

    async def submitted(self) -> str:
        async def there() -> bool:
            return bool(self.stack.cluster.submissions)

        await self.until(there, "the job is submitted")
        return self.stack.cluster.submissions[0]

    async def only_job(self) -> Job:
        submission = await self.submitted()
        return await self.stack.job(JobId(submission.rpartition("-")[0]))

    async def output_of(self, process: Process) -> str:
        """Return what a command prints until it ends, with the worker going round meanwhile."""
        reading = asyncio.create_task(process.communicate())

        async def ended() -> bool:
            return reading.done()

        await self.until(ended, "the command ends")
        return (await reading)[0].decode()


@asynccontextmanager
async def running_control_plane(redis: Redis, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """Serve it, with one organization, `acme`."""
    import_all_tables()
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    stack = FinetuneStack(database, tmp_path)
    app, keys, organizations = _control_plane(stack, redis)
    acme = await organizations.create(name="Acme", slug="acme", actor=BOOTSTRAP)
    _, admin_key = await keys.create_operator(name="operator", actor=BOOTSTRAP)
    _, tenant_key = await keys.create(acme.id, acme.default_project_id, name="first", actor=BOOTSTRAP)
    dataset = tmp_path / "teach.jsonl"
    dataset.write_bytes(rows(12))
    answers = ChatAnswers()
    app.include_router(answers.router())
    async with running(app) as url:
        yield ControlPlane(url, stack, admin_key, tenant_key, acme.id, dataset, answers)
    await database.close()


def _control_plane(stack: FinetuneStack, redis: Redis) -> tuple[FastAPI, ApiKeys, Organizations]:
    hasher = KeyHasher([Pepper(1, b"p" * 32)])
    store, operator_store = TenancyStore(stack.database, stack.clock), TenancyOperatorStore(stack.database, stack.clock)
    authenticator = KeyAuthenticator(operator_store, hasher, stack.clock, now=stack.clock)
    push = TenancyPush(authenticator, tenancy_outbox(stack.database, redis, stack.clock))
    keys = ApiKeys(store=store, operator_store=operator_store, push=push, hasher=hasher, clock=stack.clock)
    organizations = Organizations(operator_store, tell_no_one)
    app = FastAPI()
    app.state.authenticator = authenticator
    install_error_handlers(app)
    app.include_router(tenancy_router(organizations, store, operator_store, keys, push))
    for router in file_and_job_routers(
        database=stack.database,
        blobs=stack.blobs,
        clock=stack.clock,
        models=FixedModels(),
        own_models=stack.catalog,
        callable_models=FixedModels(),
        prices=FixedPrices(),
        reservations=stack.reservations,
        organizations=operator_store,
        plans=operator_store,
        policy=POLICY,
        max_upload_bytes=1_000_000,
        quota=stack.quota_of(10_000_000),
        adapters=stack.catalog,
        answers=stack.answers,
        events=write_event,
    ):
        app.include_router(router)
    return app, keys, organizations
