"""The real base model, fetched once; random LoRA adapters that fit it; and a private Ray with a real replica."""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
import torch
from redis.asyncio import Redis
from safetensors.torch import save_file

from support.gateway_stack import GatewayStack, gateway_stack
from support.replica_caller import ReplicaCaller
from support.servers.free_ports import free_ports
from tokenyard.catalog.base_models import BaseModels
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.models import LoraSpec, ModelSpec, read_model_spec
from tokenyard.core.replica import Replica
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST_FILE, AdapterManifest, adapter_digest
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of
from tokenyard_deployments.serving.app import ServedModel, serve_config, serve_environment
from tokenyard_deployments.serving.replica_settings import (
    BLOB_URL,
    METER_SECRET,
    REDIS_URL,
    REPLICA_BEARER,
    REPLICA_DIR,
)

START_TIMEOUT_S = 420.0
MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
ROOT = Path(__file__).parents[3]
RANK = 8

WriteAdapter = Callable[[Path, int], None]
PublishAdapter = Callable[[Path, str, int], AdapterRef]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """A local folder with the default base model (`TOKENYARD_TEST_MODEL`, or fetched into `build/`)."""
    return _pulled(MODEL, "TOKENYARD_TEST_MODEL")


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """The same of the shipped embedding model (`TOKENYARD_TEST_EMBEDDING_MODEL`)."""
    return _pulled(EMBEDDER, "TOKENYARD_TEST_EMBEDDING_MODEL")


def _pulled(model: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT / "build" / "models" / model)
    source, spec = source_of(model, shipped_specs())
    assert spec is not None
    pull(source, folder, lambda _step: None, template=spec.chat_template)
    return folder


@pytest.fixture(scope="session")
def write_adapter(base_model: Path) -> WriteAdapter:
    """Write a random adapter on the query and value projections, in the format of PEFT, to a folder."""
    config = json.loads((base_model / "config.json").read_bytes())
    hidden = config["hidden_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    widths = {"q_proj": head * config["num_attention_heads"], "v_proj": head * config["num_key_value_heads"]}

    def write(folder: Path, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for layer in range(config["num_hidden_layers"]):
            for module, width in widths.items():
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                weights[f"{name}.lora_A.weight"] = torch.randn(RANK, hidden, generator=generator) / hidden**0.5
                weights[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=generator) / RANK**0.5
        folder.mkdir(parents=True)
        save_file(weights, folder / ADAPTER_WEIGHTS)
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base_model),
            "r": RANK,
            "lora_alpha": RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(widths),
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(settings))

    return write


@pytest.fixture(scope="session")
def publish_adapter(write_adapter: WriteAdapter) -> PublishAdapter:
    """Write an adapter and its manifest under a blob root; return how a replica is asked for it."""

    def publish(blobs: Path, name: str, seed: int) -> AdapterRef:
        identity = AdapterId(f"{seed:016x}")
        path = f"adapters/org_test/{identity}"
        folder = blobs / path
        write_adapter(folder, seed)
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        manifest = AdapterManifest(
            files=files,
            digest=adapter_digest(files),
            base_model=MODEL,
            rank=RANK,
            target_modules=("q_proj", "v_proj"),
        )
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
        return AdapterRef(identity, name, path, manifest.digest)

    return publish


class Cluster:
    """A private Ray with Serve and one real replica; everything it started is marked, and ended by that mark."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.blobs = folder / "blobs"
        self.blobs.mkdir()
        self.redis_url = redis_url
        self.directory = folder / "replica"
        self.token = secrets.token_hex(32)
        self.meter_secret = secrets.token_bytes(32)
        self.bearer = secrets.token_hex(32)
        self._mark = secrets.token_hex(8)
        self._folder = folder
        self._gcs, self._dashboard, self._agent, self._client, self.proxy_port = free_ports(5)
        self.dashboard_url = f"http://127.0.0.1:{self._dashboard}"

    def start(self) -> None:
        (self._folder / "token").write_text(self.token)
        # Short, because a socket's path may have 107 bytes.
        self._temporary = Path(tempfile.mkdtemp(prefix="ty-ray-"))
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--disable-usage-stats"),
            *("--node-ip-address", "127.0.0.1", "--port", str(self._gcs), "--num-cpus", "16", "--num-gpus", "0"),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._dashboard)),
            *("--dashboard-agent-listen-port", str(self._agent), "--ray-client-server-port", str(self._client)),
            *("--object-store-memory", str(200 << 20), "--temp-dir", str(self._temporary)),
        ]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TOKENYARD_TEST_MARK": self._mark,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
            "SPT_NOENV": "1",
            **serve_environment(),
            METER_SECRET: self.meter_secret.hex(),
            REPLICA_BEARER: self.bearer,
            REDIS_URL: self.redis_url,
            BLOB_URL: f"file://{self.blobs}",
            REPLICA_DIR: str(self.directory),
        }
        subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)

    def processes(self) -> list[psutil.Process]:
        """Return everything that this cluster started and that still runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("TOKENYARD_TEST_MARK") == self._mark:
                    found.append(process)
        return found

    def stop(self) -> None:
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)
        shutil.rmtree(self._temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"), redis_url)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def small_spec() -> ModelSpec:
    """The default model's description, with less room for everything."""
    shipped = read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())
    return msgspec.structs.replace(
        shipped,
        context_length=1024,
        default_max_tokens=64,
        max_waiting=4,
        max_wait_s=15.0,
        max_silence_s=10.0,
        lora=LoraSpec(max_loras=2, max_cpu_loras=3, max_lora_rank=8),
    )


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
    asyncio.run(_deploy(cluster, MODEL, config))
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
        asyncio.run(_deploy(started, EMBEDDER, config))
        yield started
    finally:
        started.stop()


async def _deploy(cluster: Cluster, model: str, config: dict[str, Any]) -> None:
    async with RayServe(cluster.dashboard_url, cluster.token) as serve, asyncio.timeout(START_TIMEOUT_S):
        await serve.deploy(config)
        while True:
            status = (await serve.statuses()).get(model)
            assert status is None or status.status not in ("DEPLOY_FAILED", "UNHEALTHY"), status
            if status is not None and status.status == "RUNNING" and await serve.targets():
                return
            await asyncio.sleep(0.5)


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
