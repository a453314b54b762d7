"""A private Ray with Serve, of one node or several, and real replicas in it."""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from support.ray_cluster.ray_node import CLUSTER_MARK, RayNode, kill, marked
from support.servers.free_ports import free_ports
from tokenyard.clients.ray_serve import RayServe
from tokenyard_deployments.serving.app import serve_environment
from tokenyard_deployments.serving.replica_settings import (
    BLOB_URL,
    METER_SECRET,
    REDIS_URL,
    REPLICA_BEARER,
    REPLICA_DIR,
)

START_TIMEOUT_S = 420.0
HERE = "127.0.0.1"
"""What Ray takes to be a machine alone, and does not let others join unless it may call itself something else."""


class Cluster:
    """A private Ray with Serve; everything it started is marked, and ended by that mark. `head` is its first address.

    With `gcs_redis` (host:port) its head keeps there what it knows, and finds it again when it starts anew.
    """

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *,
        meter_secret: bytes | None = None,
        bearer: str | None = None,
        head: str = HERE,
        head_cpus: int = 16,
        gcs_redis: str | None = None,
    ) -> None:
        self.blobs = folder / "blobs"
        self.blobs.mkdir()
        self.blob_url = f"file://{self.blobs}"
        self.redis_url = redis_url
        self.directory = folder / "replica"
        self.token = secrets.token_hex(32)
        self.token_file = folder / "token"
        self.meter_secret = meter_secret or secrets.token_bytes(32)
        self.bearer = bearer or secrets.token_hex(32)
        self._mark = secrets.token_hex(8)
        self._head, self._gcs_redis = head, gcs_redis
        self._gcs, self._dashboard, self._client, self.proxy_port = free_ports(4)
        self.dashboard_url = f"http://{HERE}:{self._dashboard}"
        # Short, because a socket's path may have 107 bytes.
        self._temporary = Path(tempfile.mkdtemp(prefix="ty-ray-"))
        self.nodes: list[RayNode] = []
        """Those beside the head."""
        self.head = RayNode(head, head_cpus, self._as_head(), self._environment(head))

    def start(self) -> None:
        self.token_file.write_text(self.token)
        self.head.start()

    def start_head_again(self) -> None:
        """Start another one in place of a head that was killed, as on a machine that knows nothing of it."""
        # Other nodes' processes are here, too, and Ray would think that they are of a head.
        (self._temporary / "ray_current_cluster").unlink()
        self.head.start()

    def add_node(self, address: str, cpus: int) -> RayNode:
        """Start one more, with a disk of its own."""
        node = RayNode(address, cpus, ("--address", f"{self._head}:{self._gcs}"), self._environment(address))
        node.start()
        self.nodes.append(node)
        return node

    def directory_of(self, address: str) -> Path:
        """Return the replicas' folder on a node's own disk."""
        return self.directory if address == self._head else self.directory.with_name(f"replica-{address}")

    def processes(self) -> list[psutil.Process]:
        """Return everything that this cluster started and that still runs."""
        return marked({CLUSTER_MARK: self._mark})

    def actors(self, kind: str) -> list[psutil.Process]:
        """Return the actors of a class, as Ray names their processes."""
        return [one for one in self.processes() if f"ray::{kind}" in " ".join(one.cmdline())]

    def stop(self) -> None:
        kill(self.processes())
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _as_head(self) -> tuple[str, ...]:
        return (
            *("--head", "--port", str(self._gcs), "--temp-dir", str(self._temporary)),
            *("--dashboard-host", HERE, "--dashboard-port", str(self._dashboard)),
            *("--ray-client-server-port", str(self._client)),
        )

    def _environment(self, address: str) -> dict[str, str]:
        kept = {} if self._gcs_redis is None or address != self._head else {"RAY_REDIS_ADDRESS": self._gcs_redis}
        alone = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if address == HERE else {}
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            CLUSTER_MARK: self._mark,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
            "SPT_NOENV": "1",
            **serve_environment(),
            **kept,
            **alone,
            METER_SECRET: self.meter_secret.hex(),
            REPLICA_BEARER: self.bearer,
            REDIS_URL: self.redis_url,
            BLOB_URL: self.blob_url,
            REPLICA_DIR: str(
                self.directory if address == self._head else self.directory.with_name(f"replica-{address}")
            ),
        }


async def deploy(cluster: Cluster, model: str, config: dict[str, Any]) -> None:
    """Wait until the model's replica serves."""
    async with RayServe(cluster.dashboard_url, cluster.token) as serve, asyncio.timeout(START_TIMEOUT_S):
        await serve.deploy(config)
        while True:
            status = (await serve.statuses()).get(model)
            assert status is None or status.status not in ("DEPLOY_FAILED", "UNHEALTHY"), status
            if status is not None and status.status == "RUNNING" and await serve.targets():
                return
            await asyncio.sleep(0.5)
