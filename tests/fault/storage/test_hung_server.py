"""A PostgreSQL that hangs: connections stand, and nothing comes back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
from sqlalchemy import make_url, text

from support.servers.faulty_proxy import FaultyProxy, faulty_proxy
from tokenyard.storage.database import Database
from tokenyard.storage.outage import DatabaseDown
from tokenyard.storage.time_limits import TimeLimits

SHORT = TimeLimits(statement_s=1.0, command_margin_s=0.2, connect_s=1.5)
PORT = 5432  # in the name of its Unix socket, whatever it listens on


@dataclass(frozen=True)
class Hanging:
    database: Database
    proxy: FaultyProxy

    async def asked(self) -> object:
        async with self.database.reading() as session:
            return await session.scalar(text("SELECT 1"))

    async def stalled_halfway(self, *later: str) -> None:
        """Let the server hang inside a transaction that has more to say."""
        async with self.database.transaction() as session:
            await session.execute(text("SELECT 1"))
            self.proxy.stall()
            for statement in later:
                await session.execute(text(statement))


@pytest.fixture
async def hanging(postgres_url: str) -> AsyncIterator[Hanging]:
    folder = make_url(postgres_url).query["host"]
    connect = partial(asyncio.open_unix_connection, f"{folder}/.s.PGSQL.{PORT}")
    async with faulty_proxy(connect) as (proxy, port):
        database = Database(f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres", SHORT)
        yield Hanging(database, proxy)
        await database.close()


@pytest.mark.parametrize("later", [(), ("SELECT 1",)], ids=["commit", "statement"])
async def test_a_server_that_hangs_halfway(hanging: Hanging, later: tuple[str, ...]) -> None:
    with pytest.raises(DatabaseDown):
        await hanging.stalled_halfway(*later)
    hanging.proxy.flow()
    assert await hanging.asked() == 1


async def test_a_server_that_hangs_while_nobody_asks(hanging: Hanging) -> None:
    assert await hanging.asked() == 1
    hanging.proxy.stall()
    for _ in range(2):
        with pytest.raises(DatabaseDown):
            await hanging.asked()
    hanging.proxy.flow()
    assert await hanging.asked() == 1


async def test_a_server_that_hangs_from_the_beginning(hanging: Hanging) -> None:
    hanging.proxy.stall()
    asking = [asyncio.create_task(hanging.asked()) for _ in range(20)]  # more than the pool has places
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(end) for end in ends} == {DatabaseDown}
    hanging.proxy.flow()
    assert await hanging.asked() == 1
