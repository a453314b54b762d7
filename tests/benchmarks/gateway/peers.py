"""Other gateways, each in an environment of its own under build/bench, at the newest version that installs.

LiteLLM checks one master key and keeps no database and no budgets; Portkey passes through, without keys or limits.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.figures import ROOT
from benchmarks.gateway.stand import CHAT, MEASURED_CORE, MODEL, PATH, Target, pinned, until
from support.servers.free_ports import free_port

HOME = ROOT / "build" / "bench" / "peers"
MASTER_KEY = "sk-bench"
INSTALL_LIMIT_S = 900
START_LIMIT_S = 120.0


class NotInstallable(Exception):
    """The peer cannot be had on this machine; the message says why."""


@contextmanager
def litellm(server: str, folder: Path) -> Iterator[tuple[Target, str]]:
    """Run LiteLLM's proxy in front of `server`; yield it and its version."""
    environment = HOME / "litellm"
    python = environment / "bin" / "python"
    if not (environment / "bin" / "litellm").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
        _run([str(python), "-m", "pip", "install", "--quiet", "litellm[proxy]"])
    version = _run([str(python), "-c", "from importlib.metadata import version; print(version('litellm'))"]).strip()
    config = folder / "litellm.json"
    where = {"model": f"openai/{MODEL}", "api_base": f"{server}/v1", "api_key": "x"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": where}],
                "general_settings": {"master_key": MASTER_KEY},
                "litellm_settings": {"num_retries": 0, "callbacks": []},
            }
        )
    )
    port = free_port()
    command = [str(environment / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    with pinned(
        [*command, "--port", str(port), "--num_workers", "1", "--telemetry", "False"],
        MEASURED_CORE,
        {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    ):
        headers = {"authorization": f"Bearer {MASTER_KEY}", "content-type": "application/json"}
        yield _ready(Target(f"http://127.0.0.1:{port}{PATH}", headers)), version


@contextmanager
def portkey(server: str) -> Iterator[tuple[Target, str]]:
    """Run Portkey's gateway in front of `server`; yield it and its version."""
    environment = HOME / "portkey"
    package = environment / "node_modules" / "@portkey-ai" / "gateway"
    if not package.exists():
        environment.mkdir(parents=True, exist_ok=True)
        _run([_tool("npm"), "install", "--silent", "--prefix", str(environment), "@portkey-ai/gateway"])
    version = json.loads((package / "package.json").read_text())["version"]
    port = free_port()
    start = [_tool("node"), str(package / "build" / "start-server.js"), "--headless", f"--port={port}"]
    with pinned(start, MEASURED_CORE):
        headers = {
            "authorization": "Bearer x",
            "content-type": "application/json",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{server}/v1",
        }
        yield _ready(Target(f"http://127.0.0.1:{port}{PATH}", headers)), version


def _ready(target: Target) -> Target:
    def answers() -> bool:
        return httpx.post(target.url, json=CHAT, headers=dict(target.headers), timeout=5).is_success

    until(answers, START_LIMIT_S)
    return target


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstallable(f"{name} is not on this machine")
    return found


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_LIMIT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(f"{command[0]} {' '.join(command[1:4])}: {str(error.stderr)[-300:]}") from error
    return done.stdout
