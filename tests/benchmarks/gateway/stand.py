"""What the gateway's benchmarks share: Valkey, a model server that costs nothing, gateways, the ceiling, and loads.

What is measured has one core; Valkey, the model server and the load share another.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import redis

from support.servers.free_ports import free_port
from support.servers.valkey import running_valkey
from tokenyard.bootstrap.foundation import Foundation
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.catalog.replicas.registry import ReplicaRegistry, ReplicaSnapshot
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.replica import Replica
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of
from tokenyard.tenancy.organizations import Organizations
from tokenyard.webhooks.events import write_event
from tokenyard_billing.wallets.store import OpeningCredit, Wallet

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"
PATH = "/v1/chat/completions"
CHAT = {"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": "Capital of France?"}]}
MEASURED_CORE = 0
OTHER_CORE = (os.cpu_count() or 1) - 1
ACTOR = ApiKeyId("bench")
# Every limit there is, each above what a benchmark can reach.
ROOMY = Limits(
    requests_per_minute=10**7,
    tokens_per_minute=10**10,
    requests_per_day=10**9,
    tokens_per_day=10**12,
    concurrency=10**4,
    monthly_spend=NanoDollars(10**15),
)
FEW_A_MINUTE = 2000
TENANTS = {
    "limited": ROOMY,
    "unlimited": Limits(),
    "few": Limits(requests_per_minute=FEW_A_MINUTE),
    "hostile": ROOMY,
}


@dataclass(frozen=True)
class Target:
    """Where to send a chat, as whom."""

    url: str
    headers: Mapping[str, str]
    body: bytes = json.dumps(CHAT).encode()


@dataclass(frozen=True)
class Load:
    """What a load found; latencies are in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    statuses: Mapping[str, int]

    @property
    def clean(self) -> bool:
        return set(self.statuses) == {"200"}


class Stand:
    """`keys` are those of `TENANTS`, by their names."""

    def __init__(self, settings: Settings, server: str, keys: Mapping[str, str]) -> None:
        self.settings = settings
        self.server = server
        self.keys = keys
        self._redis = redis.Redis.from_url(settings.effective_redis_url)

    @contextmanager
    def gateway(self, core: int = MEASURED_CORE) -> Iterator[tuple[str, psutil.Process]]:
        """Run a gateway process; yield its URL once it can serve."""
        port = free_port()
        environment = {**os.environ, **environment_of(self.settings), "TOKENYARD_GATEWAY_PORT": str(port)}
        with pinned([sys.executable, "-m", "tokenyard.bootstrap.gateway"], core, environment) as process:
            url = f"http://127.0.0.1:{port}"
            until(lambda: set(httpx.get(f"{url}/ready", timeout=2).json()["checks"].values()) == {"ok"})
            yield url, process

    @contextmanager
    def ceiling(self) -> Iterator[str]:
        port = free_port()
        command = [sys.executable, str(HERE / "ceiling_server.py"), str(port), self.server]
        with pinned([*command, self.settings.effective_redis_url], MEASURED_CORE):
            url = f"http://127.0.0.1:{port}"
            until(lambda: httpx.post(url + PATH, json=CHAT, headers=self.bearer("unlimited"), timeout=2).is_success)
            yield url

    def bearer(self, tenant: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[tenant]}", "content-type": "application/json"}

    def script_us(self) -> float:
        """Return the mean time of a script in Redis since the last call, in microseconds."""
        found: dict[str, dict[str, float]] = self._redis.info("commandstats")
        self._redis.config_resetstat()
        return found["cmdstat_evalsha"]["usec_per_call"]


@contextmanager
def stand(folder: Path) -> Iterator[Stand]:
    settings = Settings(
        data_dir=folder / "data",
        valkey_port=free_port(),
        gateway_port=free_port(),
        secret="b" * 64,
        opening_credit_dollars="100000",
    )
    settings.data_dir.mkdir()
    bring_up_to_date(settings)
    port = free_port()
    with (
        running_valkey(folder, settings.valkey_port),
        pinned([sys.executable, str(HERE / "canned_server.py"), str(port)], OTHER_CORE),
    ):
        server = f"http://127.0.0.1:{port}"
        yield Stand(settings, server, asyncio.run(_prepare(settings, server)))


def load(target: Target, connections: int, seconds: float, *, rate: float | None = None) -> Load:
    """Send the same request again and again over `connections`, at most `rate` a second in all."""
    command = [sys.executable, str(HERE / "load.py"), target.url, str(connections), str(seconds), str(rate or 0)]
    found = json.loads(_run(command, target, seconds))
    return Load(found["rps"], found["p50_ms"], found["p99_ms"], found["statuses"])


def streams(target: Target, count: int, tokens: int) -> dict[str, float]:
    """Read `count` streams of `tokens` events at once; return what `stream_load.py` prints."""
    body = json.dumps({**CHAT, "max_tokens": tokens, "stream": True}).encode()
    command = [sys.executable, str(HERE / "stream_load.py"), target.url, str(count), str(tokens)]
    found: dict[str, float] = json.loads(_run(command, Target(target.url, target.headers, body), tokens / 50))
    return found


def _run(command: Sequence[str], target: Target, seconds: float) -> bytes:
    headers = [f"{name}={value}" for name, value in target.headers.items()]
    finished = subprocess.run(
        [*command, *headers],
        input=target.body,
        capture_output=True,
        check=True,
        timeout=seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CORE}),
    )
    return finished.stdout


async def _prepare(settings: Settings, replica_url: str) -> dict[str, str]:
    async with Foundation.opened(settings) as foundation:
        wallet = Wallet(foundation.database, foundation.outbox, write_event, foundation.clock)
        credit = OpeningCredit(wallet, settings.opening_credit_dollars)
        organizations = Organizations(foundation.tenancy_operator, credit.created)
        keys = {}
        for name, limits in TENANTS.items():
            organization = await organizations.create(name=name, slug=name, actor=ACTOR, limits=limits)
            project = await foundation.tenancy.create_project(organization.id, name=name, limits=limits, actor=ACTOR)
            _key, keys[name] = await foundation.api_keys.create(
                organization.id, project.id, name=name, actor=ACTOR, limits=limits
            )
            await foundation.live_budgets.set_ready(bucket_of(organization.id))
        replica = Replica(name="canned", model=MODEL, url=replica_url)
        snapshot = ReplicaSnapshot((replica,), at_ms=int(time.time() * 1000), complete=True)
        await ReplicaRegistry(foundation.redis).publish(snapshot)
        return keys


@contextmanager
def pinned(command: Sequence[str], core: int, environment: dict[str, str] | None = None) -> Iterator[psutil.Process]:
    """Run a process on one core for as long as the context lasts."""
    with psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        process.cpu_affinity([core])
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10)


def until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
            if holds():
                return
        time.sleep(0.1)
    raise RuntimeError(f"not ready within {limit_s:.0f} s")
