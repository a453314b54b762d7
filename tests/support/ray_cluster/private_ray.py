"""A private Ray on free ports, with its Jobs API and its token, that ends with the test."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.servers.free_ports import free_ports


@dataclass(frozen=True)
class Cluster:
    """Where Ray's dashboard is, the token it wants, and the process that all of Ray's come from."""

    url: str
    token_file: Path
    pid: int


@contextmanager
def private_ray() -> Iterator[Cluster]:
    """Run a head node until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="tyr"))  # Ray's sockets lie below, and their paths must be short
    token_file = folder / "token"
    token_file.write_text("t" * 48)
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    ports = free_ports(6)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    command = [f"{bin_folder}/ray", "start", "--head", "--block", "--num-cpus=4", "--num-gpus=0"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=False)]
    command += [f"--metrics-export-port={ports[4]}", f"--temp-dir={folder / 'r'}", "--node-ip-address=127.0.0.1"]
    command += ["--object-store-memory=100000000", "--dashboard-host=127.0.0.1", f"--ray-client-server-port={ports[5]}"]
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{ports[1]}"
        _wait_until_up(head, url, folder / "log")
        yield Cluster(url, token_file, head.pid)
    finally:
        head.terminate()
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(head: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if head.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=2)
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:  # it is up, and wants the token
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"Ray did not start: {log.read_text()[-2000:]}")
