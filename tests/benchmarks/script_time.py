"""What the scripts of one request cost Redis: ours with everything on, and the two small ones of the gateway's ceiling.

Each figure is Redis' own (commandstats: microseconds an EVALSHA call, the mean of admission and settlement), of short
interleaved rounds the best quarter: Redis counts by the clock, and the others' work is not the script's.
"""

import asyncio
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.figures import write_figures
from benchmarks.gateway.ceiling_server import GIVE, TAKE
from support.fakes.admission_requests import (
    ORGANIZATION,
    BudgetTable,
    admission_request,
    open_buckets,
    principal,
    settled,
)
from support.servers.free_ports import free_port
from support.servers.valkey import running_valkey
from tokenyard.core.budgets import wallet
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.limits.admission import RedisAdmission
from tokenyard.storage.redis import connect_redis

ROUNDS = 41
CONNECTIONS = 16  # as many as the gateway's benchmark has
REQUESTS = 8  # of each; few, so that some rounds have the processor to themselves
# Every limit there is, each above what one run can reach.
ROOMY = Limits(
    requests_per_minute=10**7,
    tokens_per_minute=10**10,
    requests_per_day=10**9,
    tokens_per_day=10**12,
    concurrency=10**4,
    monthly_spend=NanoDollars(10**15),
)
USAGE = b'{"prompt_tokens":12,"completion_tokens":16,"total_tokens":28}'
CALLER = principal(key=ROOMY, project=ROOMY, organization=ROOMY)


@dataclass(frozen=True)
class ScriptFigures:
    """Microseconds of Redis a script call: ours with all limits on three scopes and four budgets, and the ceiling's."""

    ours_us: float
    ceiling_us: float

    @property
    def ratio(self) -> float:
        return self.ours_us / self.ceiling_us


async def measure(folder: Path) -> ScriptFigures:
    """Measure on a server of its own, with its data in `folder`."""
    with running_valkey(folder, free_port()) as url:
        redis = connect_redis(url)
        await open_buckets(redis)
        budgets = BudgetTable()
        budgets.set(wallet(ORGANIZATION), 10**15)
        admission = RedisAdmission(
            redis, budgets.load, spool_folder=folder / "spool", lease_ms=30_000, renewal_ms=5_000
        )
        ours, ceiling = [], []
        for _ in range(ROUNDS):
            ours.append(await _evalsha_us(redis, _ours(admission)))
            ceiling.append(await _evalsha_us(redis, _ceiling(redis)))
        await redis.aclose()
    return ScriptFigures(statistics.quantiles(ours)[0], statistics.quantiles(ceiling)[0])


async def _ours(admission: RedisAdmission) -> None:
    async def request() -> None:
        admitted = await admission.admit(admission_request(CALLER))
        await admission.settle(settled(admitted.claims), NanoDollars(30))

    for _ in range(REQUESTS):
        await asyncio.gather(*(request() for _ in range(CONNECTIONS)))


async def _ceiling(redis: Redis) -> None:
    take, give = redis.register_script(TAKE), redis.register_script(GIVE)

    async def request() -> None:
        await take(keys=["ceiling:key"], args=[16])
        await give(keys=["ceiling:key", "ceiling:usage"], args=[16, USAGE])

    for _ in range(REQUESTS):
        await asyncio.gather(*(request() for _ in range(CONNECTIONS)))


async def _evalsha_us(redis: Redis, load: Any) -> float:
    await redis.config_resetstat()
    await load
    return float((await redis.info("commandstats"))["cmdstat_evalsha"]["usec_per_call"])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-") as name:
        figures = asyncio.run(measure(Path(name)))
    write_figures(
        "scripts",
        {
            "script_us": round(figures.ours_us, 1),
            "script_ceiling_us": round(figures.ceiling_us, 1),
            "script_us_ratio": round(figures.ratio, 2),
        },
    )


if __name__ == "__main__":
    main()
