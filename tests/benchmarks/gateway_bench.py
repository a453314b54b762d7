"""The gateway alone: the real process, all features on, in front of a model server that costs nothing.

The gateway has one core; Valkey, the model server and the load share another. Each figure is the median of interleaved
rounds, so that a machine whose speed drifts does not decide the ratio.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

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
from tokenyard_billing.wallets.store import OpeningCredit, Wallet

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"
BODY = json.dumps({"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": "Capital of France?"}]})
ROUNDS = 5
ROUND_S = 3
CONNECTIONS = 16
GATEWAY_CORE = 0
OTHER_CORE = (os.cpu_count() or 1) - 1
ACTOR = ApiKeyId("bench")
# Every limit there is, each above what one round can reach.
ROOMY = Limits(
    requests_per_minute=10**7,
    tokens_per_minute=10**10,
    requests_per_day=10**9,
    tokens_per_day=10**12,
    concurrency=10**4,
    monthly_spend=NanoDollars(10**15),
)


@dataclass(frozen=True)
class GatewayFigures:
    """`rps` is requests a second of one gateway process at 16 connections; `added_p50_ms` is at 1 connection.

    Both are of a key whose key, project and organization have every limit there is; `unlimited_rps` is without any.
    """

    rps: float
    unlimited_rps: float
    direct_rps: float
    added_p50_ms: float
    memory_mb: float


def measure(folder: Path) -> GatewayFigures:
    """Run the benchmark with its data in `folder`."""
    settings = Settings(
        data_dir=folder / "data",
        valkey_port=free_port(),
        gateway_port=free_port(),
        secret="b" * 64,
        opening_credit_dollars="100000",
    )
    settings.data_dir.mkdir()
    bring_up_to_date(settings)
    server = free_port()
    with (
        running_valkey(folder, settings.valkey_port),
        _process([sys.executable, str(HERE / "canned_server.py"), str(server)], OTHER_CORE),
    ):
        keys = asyncio.run(_prepare(settings, f"http://127.0.0.1:{server}"))
        environment = {**os.environ, **environment_of(settings)}
        command = [sys.executable, "-m", "tokenyard.bootstrap.gateway"]
        with _process(command, GATEWAY_CORE, environment) as gateway:
            _until_ready(settings.effective_api_url)
            return _rounds(settings.effective_api_url, f"http://127.0.0.1:{server}", keys, gateway)


def _rounds(gateway_url: str, direct_url: str, keys: Mapping[str, str], gateway: psutil.Process) -> GatewayFigures:
    path, key = "/v1/chat/completions", keys["limited"]
    through, unlimited, direct, slow, fast = [], [], [], [], []
    for each in keys.values():
        load(gateway_url + path, CONNECTIONS, 2, each)  # warm
    for _ in range(ROUNDS):
        through.append(load(gateway_url + path, CONNECTIONS, ROUND_S, key)["rps"])
        unlimited.append(load(gateway_url + path, CONNECTIONS, ROUND_S, keys["unlimited"])["rps"])
        direct.append(load(direct_url + path, CONNECTIONS, 1, key)["rps"])
        slow.append(load(gateway_url + path, 1, ROUND_S, key)["p50_ms"])
        fast.append(load(direct_url + path, 1, 1, key)["p50_ms"])
    return GatewayFigures(
        rps=statistics.median(through),
        unlimited_rps=statistics.median(unlimited),
        direct_rps=statistics.median(direct),
        added_p50_ms=statistics.median(slow) - statistics.median(fast),
        memory_mb=gateway.memory_info().rss / 2**20,
    )


def load(url: str, connections: int, seconds: float, key: str) -> dict[str, float]:
    """Load `url`; any answer but 200 fails the benchmark."""
    command = [sys.executable, str(HERE / "load.py"), url, str(connections), str(seconds)]
    headers = [f"authorization=Bearer {key}", "content-type=application/json"]
    finished = subprocess.run(
        [*command, *headers],
        input=BODY.encode(),
        capture_output=True,
        check=True,
        timeout=seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CORE}),
    )
    result: dict[str, float] = json.loads(finished.stdout)
    assert result["errors"] == 0, result
    return result


async def _prepare(settings: Settings, replica_url: str) -> dict[str, str]:
    async with Foundation.opened(settings) as foundation:
        wallet = Wallet(foundation.database, foundation.outbox, foundation.clock)
        credit = OpeningCredit(wallet, settings.opening_credit_dollars)
        organizations = Organizations(foundation.tenancy_operator, credit.created)
        keys = {}
        for name, limits in (("limited", ROOMY), ("unlimited", Limits())):
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
def _process(command: list[str], core: int, environment: dict[str, str] | None = None) -> Iterator[psutil.Process]:
    with psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        process.cpu_affinity([core])
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10)


def _until_ready(url: str) -> None:
    for _ in range(300):
        try:
            if set(httpx.get(f"{url}/ready", timeout=2).json().get("checks", {"": ""}).values()) == {"ok"}:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the gateway did not become ready")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(measure(Path(name)))  # noqa: T201
