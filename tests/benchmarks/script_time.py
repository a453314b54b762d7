"""What the scripts of one request cost Redis: ours with everything on, and the two small ones of the ceiling.

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
from tokenyard.metering.events import encode_event
from tokenyard.storage.redis import connect_redis

ROUNDS = 41
REQUESTS = 100  # few, so that some rounds have the processor to themselves
# Every limit there is, each above what one run can reach.
ROOMY = Limits(
    requests_per_minute=10**7,
    tokens_per_minute=10**10,
    requests_per_day=10**9,
    tokens_per_day=10**12,
    concurrency=10**4,
    monthly_spend=NanoDollars(10**15),
)
CALLER = principal(key=ROOMY, project=ROOMY, organization=ROOMY)

# The least that keeps one limit and one budget at all: count, compare, hold with a lease; then release, charge, report.
CEILING_ADMIT = """
local used = redis.call('INCR', KEYS[1])
if used == 1 then redis.call('PEXPIRE', KEYS[1], 60000) end
local budget = redis.call('HMGET', KEYS[2], 'ledger', 'pending', 'held')
if used > tonumber(ARGV[1]) or budget[1] - (budget[2] or 0) - (budget[3] or 0) < tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[2], 'held', ARGV[2])
redis.call('SET', KEYS[4], ARGV[2], 'PX', 30000)
return used
"""
CEILING_SETTLE = """
if redis.call('DEL', KEYS[4]) == 1 then redis.call('HINCRBY', KEYS[2], 'held', -ARGV[1]) end
redis.call('HINCRBY', KEYS[2], 'pending', ARGV[2])
redis.call('XADD', KEYS[3], '*', 'event', ARGV[3])
return 1
"""


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
    for _ in range(REQUESTS):
        admitted = await admission.admit(admission_request(CALLER))
        await admission.settle(settled(admitted.claims), NanoDollars(30))


async def _ceiling(redis: Redis) -> None:
    keys = ["ceiling:window", "ceiling:budget", "ceiling:usage", "ceiling:hold"]
    await redis.hset(keys[1], "ledger", str(10**15))
    admit, settle = redis.register_script(CEILING_ADMIT), redis.register_script(CEILING_SETTLE)
    event = encode_event(settled(admission_request(CALLER).claims))
    for _ in range(REQUESTS):
        await admit(keys=keys, args=[10**9, 100])
        await settle(keys=keys, args=[100, 30, event])


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
