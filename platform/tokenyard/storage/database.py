"""The SQL database: SQLite by default, PostgreSQL by setting. The same code runs on both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, registry
from sqlalchemy.pool import ConnectionPoolEntry

SQLITE_BUSY_TIMEOUT_MS = 10_000
POOL_SIZE = 5
POOL_TIMEOUT_S = 10


class Base(DeclarativeBase):
    """The parent of every table. Tables carry their owner's prefix; no foreign key crosses an owner."""

    registry = registry()


class Database:
    """Hands out transactions.

    A writing transaction on SQLite starts with BEGIN IMMEDIATE, so two writers wait for each other instead of failing
    halfway; a reading one sees one snapshot.
    """

    def __init__(self, url: str) -> None:
        """Take a SQLAlchemy async URL: `sqlite+aiosqlite:///<file>` or `postgresql+asyncpg://...`."""
        self._engine = _create_engine(url)

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a writing transaction; commit at the end, roll back on any error."""
        async with self._connect("BEGIN IMMEDIATE") as connection:
            session = AsyncSession(bind=connection, expire_on_commit=False)
            async with session, session.begin():
                yield session
            await connection.commit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a read-only transaction; nothing written in it is kept."""
        async with self._connect("BEGIN") as connection, AsyncSession(bind=connection) as session:
            yield session

    @asynccontextmanager
    async def _connect(self, begin: str) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            await connection.execution_options(tokenyard_begin=begin)
            yield connection

    async def close(self) -> None:
        await self._engine.dispose()


def _create_engine(url: str) -> AsyncEngine:
    # Errors are logged, and what tenants sent must not be: so they tell the statement without its parameters.
    if not url.startswith("sqlite"):
        return create_async_engine(
            url, pool_size=POOL_SIZE, pool_timeout=POOL_TIMEOUT_S, pool_pre_ping=True, hide_parameters=True
        )
    engine = create_async_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000}, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: it would begin them DEFERRED.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    begin = connection.get_execution_options().get("tokenyard_begin", "BEGIN")
    connection.exec_driver_sql(begin)
