"""The real base model, fetched once; random LoRA adapters that fit it; and a private Ray with a real replica."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis

from support.adapters.random_adapters import publish_random_adapter, write_random_adapter
from support.gateway_stack import GatewayStack, gateway_stack
from support.ray_cluster.serving_cluster import Cluster, deploy
from support.ray_cluster.small_model import MODEL, pulled, small_spec
from support.replica_caller import ReplicaCaller
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard.core.replica import Replica
from tokenyard_deployments.base_models.fetch import shipped_specs
from tokenyard_deployments.serving.app import ServedModel, serve_config

START_TIMEOUT_S = 420.0
EMBEDDER = "all-minilm-l6-v2"

WriteAdapter = Callable[[Path, int], None]
PublishAdapter = Callable[[Path, str, int], AdapterRef]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """A local folder with the default base model (`TOKENYARD_TEST_MODEL`, or fetched into `build/`)."""
    return pulled()


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """The same of the shipped embedding model (`TOKENYARD_TEST_EMBEDDING_MODEL`)."""
    return pulled(EMBEDDER, "TOKENYARD_TEST_EMBEDDING_MODEL")


@pytest.fixture(scope="session")
def write_adapter(base_model: Path) -> WriteAdapter:
    """Write a random adapter on the query and value projections, in the format of PEFT, to a folder."""
    return partial(write_random_adapter, base_model)


@pytest.fixture(scope="session")
def publish_adapter(base_model: Path) -> PublishAdapter:
    """Write an adapter and its manifest under a blob root; return how a replica is asked for it."""
    return partial(publish_random_adapter, base_model)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"), redis_url)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session", name="small_spec")
def _small_spec() -> ModelSpec:
    """The default model's description, with less room for everything."""
    return small_spec()


@pytest.fixture(scope="session")
def deployed(cluster: Cluster, base_model: Path, small_spec: ModelSpec) -> Cluster:
    """The cluster with one small replica of the default model in service."""
    config = serve_config(
        [ServedModel(small_spec, str(base_model))],
        host="127.0.0.1",
        port=cluster.proxy_port,
        graceful_shutdown_timeout_s=2,
        engine={"kv_cache_memory_bytes": 256 << 20, "max_num_seqs": 4, "max_num_batched_tokens": 256},
    )
    asyncio.run(deploy(cluster, MODEL, config))
    return cluster


@pytest.fixture(scope="module")
def embedding_cluster(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, embedding_model: Path
) -> Iterator[Cluster]:
    """A cluster of its own with one replica of the shipped embedding model, which lets little wait."""
    shipped = read_model_spec((shipped_specs() / f"{EMBEDDER}.yaml").read_bytes())
    spec = msgspec.structs.replace(shipped, max_waiting=512)
    started = Cluster(tmp_path_factory.mktemp("embedding"), redis_url)
    config = serve_config(
        [ServedModel(spec, str(embedding_model))],
        host="127.0.0.1",
        port=started.proxy_port,
        graceful_shutdown_timeout_s=2,
    )
    try:
        started.start()
        asyncio.run(deploy(started, EMBEDDER, config))
        yield started
    finally:
        started.stop()


@pytest.fixture
async def caller(deployed: Cluster) -> AsyncIterator[ReplicaCaller]:
    async with _caller(deployed) as caller:
        yield caller


@pytest.fixture
async def embedder(embedding_cluster: Cluster) -> AsyncIterator[ReplicaCaller]:
    async with _caller(embedding_cluster) as caller:
        yield caller


@contextlib.asynccontextmanager
async def _caller(cluster: Cluster) -> AsyncIterator[ReplicaCaller]:
    async with (
        RayServe(cluster.dashboard_url, cluster.token) as serve,
        ReplicaClient(cluster.bearer) as control,
        aiohttp.ClientSession() as http,
    ):
        (target,) = await serve.targets()
        yield ReplicaCaller(cluster, target, http, control)


@pytest.fixture
async def gateway(
    redis: Redis, tmp_path: Path, caller: ReplicaCaller, small_spec: ModelSpec
) -> AsyncIterator[GatewayStack]:
    """A gateway that knows neither the model's vocabulary nor anything else that the engine knows better."""
    cluster = caller.cluster
    base = BaseModels([small_spec], tmp_path / "nowhere").get(MODEL)
    assert base is not None
    async with gateway_stack(
        redis, tmp_path, replicas=0, meter_secret=cluster.meter_secret, bearer=cluster.bearer
    ) as stack:
        stack.models.base = base
        stack.replicas.listed = [Replica(caller.target.name, MODEL, caller.target.url)]
        yield stack
