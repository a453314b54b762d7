"""A worker's ledger consumer as a process of its own, to be killed: `-m support.billing.process DATABASE REDIS NAME`.

Takes every bucket at once, as a worker does when its predecessor's leases have run out, and ends when all is taken in.
"""

import asyncio
import sys
import time

from support.billing.stand import ACME, GLOBEX, stream_length, worker
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard_billing.bucket_leases import LEASE_MS


class LaterClock:
    """Runs ahead further for each process, so that the leases of the killed one have run out."""

    def __init__(self, name: str) -> None:
        self._ahead_s = (int(name[1:]) + 1) * (LEASE_MS / 1000 + 5)

    def now_ms(self) -> int:
        return round((time.time() + self._ahead_s) * 1000)


async def main(database_url: str, redis_url: str, name: str) -> None:
    database, redis = Database(database_url), connect_redis(redis_url)
    stand = worker(database, redis, name=name, clock=LaterClock(name))
    sys.stdout.write("consuming\n")
    sys.stdout.flush()
    idle = 0
    while idle < 5:
        await stand.consumer.step()
        left = await stream_length(redis, ACME) + await stream_length(redis, GLOBEX)
        idle = 0 if left else idle + 1
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
