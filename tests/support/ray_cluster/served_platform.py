"""All that serves a model, each part as in production: gateway, worker, their stores, and replicas in a private Ray."""

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from pydantic import SecretStr

from support.adapters.random_adapters import publish_random_adapter
from support.ray_cluster.serving_cluster import HERE, Cluster
from support.ray_cluster.small_model import MODEL, small_spec_to_share
from support.servers.free_ports import free_ports
from support.servers.installation import running_process
from support.servers.valkey import running_valkey
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.bootstrap.operator_key import first_admin_key
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.clients.ray_serve import RayServe
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.model_files.reading import write_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard.core.replica import Replica
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of

DEPLOY_LIMIT_S, SERVES_LIMIT_S = 400.0, 400.0
HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")
"""Addresses of this machine that Ray takes for other machines."""


@dataclass
class ServedPlatform:
    """One model, one gateway, one worker and one tenant with an adapter of its own."""

    settings: Settings
    cluster: Cluster
    foundation: Foundation
    http: aiohttp.ClientSession
    admin_key: str
    base: Path
    spec: ModelSpec
    organization: OrganizationId = field(init=False)
    key: str = field(init=False)
    adapter: str = field(init=False)

    @property
    def url(self) -> str:
        return self.settings.local_url(self.settings.gateway_port)

    def describe(self, **changes: Any) -> None:
        """Change the model's file."""
        self.spec = msgspec.structs.replace(self.spec, **changes)
        _model_file(self.settings).write_bytes(write_model_spec(self.spec))

    async def deploy(self) -> None:
        """Run `tokenyard deploy`, which ends when all replicas are what the file says."""
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "tokenyard"),
            "deploy",
            env={
                **self.cluster.head.environment,
                **environment_of(self.settings),
                "TOKENYARD_ADMIN_KEY": self.admin_key,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(DEPLOY_LIMIT_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, said.decode()

    async def replicas(self) -> Sequence[Replica]:
        """Return what gateways are told."""
        return await ReplicaRegistry(self.foundation.redis).of(MODEL)

    async def named(self) -> set[str]:
        """Return the replicas that Serve names, by name; none where it does not answer."""
        try:
            async with RayServe(self.cluster.dashboard_url, self.cluster.token) as serve:
                return {one.name for one in await serve.targets()}
        except Unavailable:
            return set()

    async def until(self, enough: Callable[[Sequence[Replica]], bool], *, limit_s: float = SERVES_LIMIT_S) -> float:
        """Wait until gateways are told `enough`; return how many seconds it took."""

        async def told_enough() -> bool:
            return enough(await self.replicas())

        return await waited(told_enough, limit_s=limit_s)

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def new_tenant(self, slug: str) -> None:
        """Make the tenant that asks from now on, with an adapter that it alone may call."""
        made = await self.admin("POST", "/admin/organizations", {"name": slug, "slug": slug})
        key = await self.admin("POST", f"/admin/organizations/{slug}/api_keys", {"name": "test"})
        self.organization, self.key = OrganizationId(made["id"]), str(key["value"])
        seed = secrets.randbits(48)
        name = FineTunedName(MODEL, slug, "bot", AdapterId(f"{seed:016x}"))
        ref = publish_random_adapter(self.base, self.cluster.blobs, str(name), seed)
        await self.foundation.adapters.register(
            self.organization,
            project=ProjectId(made["default_project_id"]),
            name=name,
            path=ref.path,
            digest=ref.digest,
            size=1,
            job=JobId("ftjob-test"),
            actor=ApiKeyId("key_test"),
        )
        await self.foundation.adapters.promote(self.organization, ref.id)
        self.adapter = ref.name


async def waited(true: Callable[[], Awaitable[bool]], *, limit_s: float) -> float:
    """Wait until it is `true`; return how many seconds it took.

    Raises:
        TimeoutError: it is not in time.
    """
    began = time.monotonic()
    async with asyncio.timeout(limit_s):
        while not await true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    return time.monotonic() - began


@asynccontextmanager
async def served_platform(folder: Path, base: Path, *, nodes: int = 0, **changes: Any) -> AsyncIterator[ServedPlatform]:
    """Serve the base model, its description changed so, until the block ends.

    Its replicas lie on the head, or on so many nodes beside it, of which each has room for one.
    """
    (folder / "models").mkdir()
    (folder / "models" / MODEL).symlink_to(base)
    (folder / "described").mkdir()
    valkey_port, gateway_port, worker_port = free_ports(3)
    settings = Settings(
        data_dir=folder,
        secret=SecretStr(secrets.token_hex(32)),
        models_dir=folder / "described",
        ray_token_file=folder / "token",
        valkey_port=valkey_port,
        gateway_port=gateway_port,
        worker_port=worker_port,
        hold_lease_ms=6_000,
        hold_renewal_ms=1_500,
        replica_report_wait_ms=6_000,
    )
    cluster = Cluster(
        folder,
        settings.effective_redis_url,
        meter_secret=settings.derived_secret("meter"),
        bearer=settings.derived_secret("replica-bearer").hex(),
        head=HEAD if nodes else HERE,
        head_cpus=0 if nodes else 2,
        gcs_redis=f"127.0.0.1:{valkey_port}",
    )
    of_cluster = {"ray_url": cluster.dashboard_url, "serve_port": cluster.proxy_port, "blob_url": cluster.blob_url}
    settings = settings.model_copy(update=of_cluster)
    async with AsyncExitStack() as stack:
        await _enter(stack, running_valkey(folder, valkey_port))
        stack.callback(cluster.stop)
        await asyncio.to_thread(_start, cluster, NODES[:nodes])
        spec = msgspec.structs.replace(small_spec_to_share(), **changes)
        platform = await _opened(settings, cluster, base, spec, stack)
        for name, port in (("worker", worker_port), ("gateway", gateway_port)):
            await _enter(stack, running_process(name, environment_of(settings), port, folder))
        await platform.deploy()
        await platform.until(bool)
        await platform.new_tenant("acme")
        yield platform


async def _opened(
    settings: Settings, cluster: Cluster, base: Path, spec: ModelSpec, stack: AsyncExitStack
) -> ServedPlatform:
    _model_file(settings).write_bytes(write_model_spec(spec))
    await asyncio.to_thread(bring_up_to_date, settings)
    admin_key = await first_admin_key(settings)
    assert admin_key is not None
    foundation = await stack.enter_async_context(Foundation.opened(settings))
    await stack.enter_async_context(foundation.price_book)
    await stack.enter_async_context(foundation.model_files)
    return ServedPlatform(
        settings,
        cluster,
        foundation,
        await stack.enter_async_context(aiohttp.ClientSession()),
        admin_key,
        base,
        spec,
    )


def _model_file(settings: Settings) -> Path:
    return settings.models_dir / f"{MODEL}.yaml"


def _start(cluster: Cluster, addresses: Sequence[str]) -> None:
    cluster.start()
    for address in addresses:
        cluster.add_node(address, 1)


async def _enter(stack: AsyncExitStack, part: AbstractContextManager[object]) -> None:
    """Start what blocks while it starts and ends."""
    await asyncio.to_thread(part.__enter__)
    stack.push_async_callback(asyncio.to_thread, part.__exit__, None, None, None)
