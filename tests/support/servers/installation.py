"""A real installation without replicas: Valkey, SQLite and our own processes, each as it is started in production."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.servers.free_ports import free_port
from support.servers.valkey import running_valkey
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of, load_settings

START_LIMIT_S = 60.0


@contextmanager
def running_installation(folder: Path) -> Iterator[Settings]:
    """Run Valkey and a gateway over a new database; this process's environment leads to them."""
    valkey_port, gateway_port = free_port(), free_port()
    with pytest.MonkeyPatch.context() as patch, running_valkey(folder, valkey_port):
        patch.setenv("TOKENYARD_DATA_DIR", str(folder))
        patch.setenv("TOKENYARD_VALKEY_PORT", str(valkey_port))
        patch.setenv("TOKENYARD_GATEWAY_PORT", str(gateway_port))
        patch.delenv("TOKENYARD_ADMIN_KEY", raising=False)
        settings = load_settings(create_secret=True)
        migrate = [sys.executable, "-m", "tokenyard.bootstrap.migrate"]
        subprocess.run(migrate, env=os.environ | environment_of(settings), check=True)
        with running_process("gateway", environment_of(settings), gateway_port, folder):
            yield settings


@contextmanager
def running_process(name: str, environment: Mapping[str, str], port: int, folder: Path) -> Iterator[str]:
    """Run one of our processes with these settings alone; yield its URL once it is alive."""
    own = {variable: value for variable, value in os.environ.items() if not variable.startswith("TOKENYARD_")}
    log = folder / f"{name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tokenyard.bootstrap.{name}"],
            env={**own, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_alive(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_alive(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
