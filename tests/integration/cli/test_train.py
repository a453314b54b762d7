"""`tokenyard-train` as a process, against the real control plane on a socket; only the cluster trains nothing."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from support.finetune.ports import FixedModels, FixedPrices
from support.finetune.rows import preference_rows, rows
from support.finetune.stack import POLICY, FinetuneStack
from support.servers.asgi import running
from support.tenancy_stand import tenancy_outbox
from tokenyard.bootstrap.finetuning import file_and_job_routers
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.finetune.job import Job
from tokenyard.storage.database import Base, Database
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.authenticator import KeyAuthenticator
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.operator_routes import operator_router as tenancy_router
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import TenancyStore
from tokenyard.web.errors import install_error_handlers

LIMIT_S = 120.0
COMMAND = Path(sys.executable).parent / "tokenyard-train"


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

    async def command(self, *arguments: str, **environment: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOKENYARD_")}
        fixed = ("--model", "small-model", "--training-file", str(self.dataset), "--base-url", self.url)
        return await asyncio.create_subprocess_exec(
            str(COMMAND), *fixed, *arguments, env=clean | environment, stdout=PIPE, stderr=STDOUT
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


@pytest.fixture
async def plane(redis: Redis, tmp_path: Path) -> AsyncIterator[ControlPlane]:
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
    async with running(app) as url:
        yield ControlPlane(url, stack, admin_key, tenant_key, acme.id, dataset)
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
        prices=FixedPrices(),
        reservations=stack.reservations,
        organizations=operator_store,
        plans=operator_store,
        policy=POLICY,
        max_upload_bytes=1_000_000,
        quota=stack.quota_of(10_000_000),
        adapters=stack.catalog,
    ):
        app.include_router(router)
    return app, keys, organizations


async def test_the_operator_trains_for_an_organization_and_leaves_no_key(plane: ControlPlane) -> None:
    command = await plane.command(
        *("--organization", "acme", "--suffix", "sky", "--validation-file", str(plane.dataset)),
        *("--n-epochs", "2", "--batch-size", "3", "--learning-rate-multiplier", "1.5", "--seed", "5"),
        "--publish-if-worse",
        TOKENYARD_ADMIN_KEY=plane.admin_key,
    )
    submission = await plane.submitted()
    spec = plane.stack.cluster.specs[submission]
    assert (spec.organization, spec.seed) == (plane.organization, 5)
    wanted = spec.hyperparameters
    assert (wanted.n_epochs, wanted.batch_size, wanted.learning_rate_multiplier) == (2, 3, 1.5)
    assert spec.validation_url is not None
    assert (await plane.stack.job(spec.job)).publish_if_worse
    await plane.stack.cluster.tell(submission, *[f"Step {step}/150" for step in range(1, 151)])
    await plane.stack.cluster.succeed(submission, tokens=600)
    output = await plane.output_of(command)
    assert command.returncode == 0, output
    told = [line.rpartition("  ")[2] for line in output.splitlines() if "Step " in line]
    assert told == [f"Step {step}/150" for step in range(1, 151)]  # all of them, over several pages, in order
    assert "Succeeded: ft:small-model:acme:sky:" in output
    assert "(600 trained tokens)" in output
    async with ApiConnection(plane.url) as connection:
        left = [key async for key in OperatorApi(connection, plane.admin_key).keys("acme")]
    assert [key.name for key in left if key.revoked_at is None] == ["first"]


async def test_a_tenant_hears_why_its_job_failed(plane: ControlPlane) -> None:
    command = await plane.command(TOKENYARD_API_KEY=plane.tenant_key)
    submission = await plane.submitted()
    await plane.stack.cluster.fail(submission, "training_diverged", "The loss is not a number any more.")
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1] == "The job failed: The loss is not a number any more."


async def test_preferences_and_any_other_setting(plane: ControlPlane) -> None:
    plane.dataset.write_bytes(preference_rows(12))
    more = ("beta=0.5", "lr_scheduler_type=cosine", 'target_modules=["q_proj", "v_proj"]')
    given = [part for one in more for part in ("--hyperparameter", one)]
    command = await plane.command("--method", "dpo", "--n-epochs", "2", *given, TOKENYARD_API_KEY=plane.tenant_key)
    submission = await plane.submitted()
    spec = plane.stack.cluster.specs[submission]
    assert (spec.method, spec.lora.target_modules) == ("dpo", ("q_proj", "v_proj"))
    wanted = spec.hyperparameters
    assert (wanted.n_epochs, wanted.beta, wanted.lr_scheduler_type) == (2, 0.5, "cosine")
    await plane.stack.cluster.succeed(submission, tokens=12)
    assert "Succeeded" in await plane.output_of(command)


async def test_a_setting_that_is_not_one_is_refused_by_name(plane: ControlPlane) -> None:
    for given, said in (("rank", "is not NAME=VALUE"), ("rank=99", "The rank must be 1 to 16")):
        command = await plane.command("--hyperparameter", given, TOKENYARD_API_KEY=plane.tenant_key)
        assert said in await plane.output_of(command)
        assert command.returncode != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_job(plane: ControlPlane, number: signal.Signals) -> None:
    command = await plane.command(TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    command.send_signal(number)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1] == "The job was cancelled."
    assert (await plane.stack.job(job.id)).status == "cancelled"


async def test_detached_a_signal_leaves_the_job_alone(plane: ControlPlane) -> None:
    command = await plane.command("--detach", TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    command.send_signal(signal.SIGTERM)
    output = await plane.output_of(command)
    assert command.returncode == 130
    assert f"job {job.id} goes on" in output
    assert (await plane.stack.job(job.id)).status == "running"


async def test_an_uploaded_file_by_its_id(plane: ControlPlane) -> None:
    first = await plane.command("--detach", TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    first.send_signal(signal.SIGTERM)
    await plane.output_of(first)
    second = await plane.command(
        "--training-file", job.training_file, "--suffix", "Not allowed!", TOKENYARD_API_KEY=plane.tenant_key
    )
    output = await plane.output_of(second)
    assert second.returncode == 1
    assert output.strip() == "The suffix must be 1 to 64 of a-z, 0-9 and '-', not '-' first."


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "Set TOKENYARD_API_KEY, or as the operator TOKENYARD_ADMIN_KEY with --organization."),
        (("--organization", "acme"), {"TOKENYARD_API_KEY": "ty-wrong"}, "API key"),
        (("--organization", "nobody"), {"TOKENYARD_ADMIN_KEY": "admin"}, "nobody"),
        (("--training-file", "no/such/file"), {"TOKENYARD_API_KEY": "tenant"}, "There is no file no/such/file"),
        (("--base-url", "http://127.0.0.1:9"), {"TOKENYARD_API_KEY": "tenant"}, "http://127.0.0.1:9"),
    ],
)
async def test_what_is_wrong_is_one_clear_line(
    plane: ControlPlane, arguments: tuple[str, ...], environment: dict[str, Any], message: str
) -> None:
    real = {"admin": plane.admin_key, "tenant": plane.tenant_key}
    given = {name: real.get(value, value) for name, value in environment.items()}
    command = await plane.command(*arguments, **given)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert message in output
    assert len(output.strip().splitlines()) == 1, output


async def test_a_bad_line_is_named(plane: ControlPlane) -> None:
    plane.dataset.write_bytes(rows(12) + b'{"messages": 1}\n')
    command = await plane.command(TOKENYARD_API_KEY=plane.tenant_key)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert "line 13" in output
