"""One node of a private Ray: its own address, ports and resources, and a mark by which its processes are found."""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.servers.free_ports import free_ports

START_LIMIT_S = 120.0
END_LIMIT_S = 20.0
CLUSTER_MARK, NODE_MARK = "TOKENYARD_TEST_MARK", "TOKENYARD_TEST_NODE"
_PORTS = (
    *("node-manager-port", "object-manager-port", "runtime-env-agent-port", "metrics-export-port"),
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port"),
)


@dataclass
class RayNode:
    """`options` say which cluster it begins or joins; `environment` holds the cluster's mark. It may start again."""

    address: str
    cpus: int
    options: tuple[str, ...]
    environment: Mapping[str, str]

    def start(self) -> None:
        # Others than before: Ray goes on calling the ports of a node that it lost, and another machine has its own.
        ports = free_ports(len(_PORTS))
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--disable-usage-stats", *self.options),
            *("--node-ip-address", self.address, "--num-cpus", str(self.cpus), "--num-gpus", "0"),
            *("--object-store-memory", str(100 << 20)),
            # Any free ones: the usual range is the same on every node, and here nodes share a machine.
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *(f"--{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
        ]
        environment = {**self.environment, NODE_MARK: self.address}
        started = subprocess.run(
            command, env=environment, check=False, timeout=START_LIMIT_S, capture_output=True, text=True
        )
        if started.returncode:
            raise RuntimeError(f"Ray did not start on {self.address}: {started.stdout[-2000:]}{started.stderr[-2000:]}")

    def processes(self) -> list[psutil.Process]:
        """Return what runs of it: Ray's own, and whatever they started."""
        return marked({CLUSTER_MARK: self.environment[CLUSTER_MARK], NODE_MARK: self.address})

    def kill(self) -> None:
        """End all of it at once, as when its machine is lost."""
        kill(self.processes())


def marked(marks: Mapping[str, str]) -> list[psutil.Process]:
    """Return the processes whose environment holds all of these."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if all(environment.get(name) == value for name, value in marks.items()):
                found.append(process)
    return found


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=END_LIMIT_S)
