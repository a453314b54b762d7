"""Starts the whole platform as a newcomer does, with `tokenyard up`, and speaks to it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI
from pydantic import SecretStr

from support.servers.free_ports import free_port
from tokenyard.clients.ray_serve import RayServe
from tokenyard.settings import Settings
from tokenyard.stack.installation import SECRET_VARIABLE

BIN = Path(sys.executable).parent
READY_LIMIT_S = 600
STOP_LIMIT_S = 25
PORTS = ("gateway", "dashboard", "serve", "worker", "valkey", "ray_gcs", "ray_dashboard")
MODEL = "smollm2-135m-instruct"


@dataclass
class Stack:
    """The platform under test. `output` is what its terminal shows; the first start alone prints the admin key."""

    environment: dict[str, str]
    process: subprocess.Popen[str]
    reader: threading.Thread
    output: list[str] = field(default_factory=list)
    admin_key: str = ""

    @property
    def text(self) -> str:
        return "".join(self.output)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['TOKENYARD_GATEWAY_PORT']}"

    @property
    def data_dir(self) -> Path:
        return Path(self.environment["TOKENYARD_DATA_DIR"])

    @property
    def settings(self) -> Settings:
        (line,) = (self.data_dir / "secrets.env").read_text().split()
        return Settings(secret=SecretStr(line.removeprefix(f"{SECRET_VARIABLE}=")))

    @property
    def replica_bearer(self) -> str:
        return self.settings.derived_secret("replica-bearer").hex()

    @property
    def ray_token(self) -> str:
        return Path(self.environment["HOME"], ".ray", "auth_token").read_text().strip()

    def printed(self, label: str) -> str:
        found = re.search(rf"^{label}:\s+(\S+)$", self.text, re.MULTILINE)
        assert found, f"{label} is not in:\n{self.text}"
        return found.group(1)

    def command(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "tokenyard"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, json=body, timeout=30)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def tenant(self, slug: str) -> tuple[str, OpenAI]:
        """Make an organization; return its id and a client with a key of it."""
        organization = self.admin("POST", "/admin/organizations", {"name": slug, "slug": slug})["id"]
        key = self.admin("POST", f"/admin/organizations/{organization}/api_keys", {"name": "test"})["value"]
        return organization, OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def child(self, name: str) -> psutil.Process:
        """Return the running process of one of the platform's parts."""
        module = f"tokenyard.bootstrap.{name}"
        for process in psutil.Process(self.process.pid).children(recursive=True):
            line = process.cmdline()
            if module in line or (name == "valkey" and line and line[0].endswith("valkey-server")):
                return process
        raise AssertionError(f"{name} does not run")

    def replicas(self) -> list[psutil.Process]:
        """Return the replicas' processes."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        return sorted((one for one in started if "ServeReplica" in "".join(one.cmdline()[:1])), key=lambda one: one.pid)

    def until_ready(self) -> None:
        """Wait until the gateway says that it can serve."""

        def ready() -> bool:
            try:
                return set(httpx.get(f"{self.url}/ready", timeout=5).json()["checks"].values()) == {"ok"}
            except httpx.TransportError:
                return False

        eventually(ready, limit_s=180)


async def replica_url(stack: Stack) -> str:
    """Return the address of the one replica."""
    dashboard = f"http://127.0.0.1:{stack.environment['TOKENYARD_RAY_DASHBOARD_PORT']}"
    async with RayServe(dashboard, stack.ray_token) as serve:
        (target,) = await serve.targets()
    return target.url


def eventually(condition: Any, *, limit_s: float = 60) -> Any:
    """Return the first true value of `condition()`; fail after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {limit_s} s: {condition}")


def start(environment: dict[str, str], admin_key: str = "") -> Stack:
    """Start the platform and wait for the last line of its welcome. `admin_key` is that of an earlier start."""
    process = subprocess.Popen(
        [str(BIN / "tokenyard"), "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output: list[str] = []

    def read() -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                output.append(line)

    stack = Stack(environment, process, threading.Thread(target=read, daemon=True), output)
    stack.reader.start()

    def ready_or_ended() -> bool:
        return "Ready in" in stack.text or process.poll() is not None

    try:
        eventually(ready_or_ended, limit_s=READY_LIMIT_S)
        assert process.poll() is None, stack.text
        stack.admin_key = admin_key or stack.printed("Admin key")
    except AssertionError:
        stop(stack)
        print(stack.text)  # noqa: T201 - the only trace of a failed start
        raise
    return stack


def stop(stack: Stack) -> float:
    """Press Ctrl-C; return how many seconds it took to end."""
    began = time.monotonic()
    if stack.process.poll() is None:
        stack.process.send_signal(signal.SIGINT)
    try:
        stack.process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(stack.process.pid, signal.SIGKILL)
        raise
    stack.reader.join(STOP_LIMIT_S)
    return time.monotonic() - began


def private_environment(folder: Path) -> dict[str, str]:
    """Return an environment with an empty home and ports of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENYARD_")}
    environment |= {f"TOKENYARD_{name.upper()}_PORT": str(free_port()) for name in PORTS}
    return environment | {
        "HOME": str(folder),
        "TOKENYARD_DATA_DIR": str(folder / "data"),
        "TOKENYARD_HOLD_LEASE_MS": "6000",
        "TOKENYARD_HOLD_RENEWAL_MS": "1500",
        "TOKENYARD_REPLICA_REPORT_WAIT_MS": "6000",
    }
