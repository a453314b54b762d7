"""The SQL database: SQLite by default, PostgreSQL by setting. The same code runs on both."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from sqlite3 import Connection as SqliteConnection
from sqlite3 import Error as SqliteError
from typing import Any, Protocol

from asyncpg import InterfaceError, PostgresError
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, registry
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.outage import DatabaseDown, raise_outage
from tokenyard.storage.time_limits import REQUEST_LIMITS, TimeLimits

POOL_SIZE = 5
# Drivers and pool say in many ways that there is no connection to be had.
_NOT_CONNECTED = (OSError, SQLAlchemyError, PostgresError, InterfaceError, SqliteError)

_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


Fence = Callable[[AsyncSession], Awaitable[None]]
"""Asked first of all in a transaction: raises where whoever writes may not do so any more, else it holds to the end."""


class AuditLog(Protocol):
    """Notes a change, in the transaction of the change itself, at `at` unix seconds (tenancy)."""

    def __call__(
        self,
        session: AsyncSession,
        organization: OrganizationId | None,
        actor: ApiKeyId,
        action: str,
        resource: str,
        *,
        at: int,
        details: dict[str, object],
        before: dict[str, object],
    ) -> None: ...


class EventLog(Protocol):
    """Tells an organization's webhooks what happened, in the transaction of the change itself (webhooks).

    `kind` is of the types that webhooks know, else it raises `ValueError`.
    """

    async def __call__(
        self,
        session: AsyncSession,
        organization: OrganizationId,
        kind: str,
        data: Mapping[str, object],
        *,
        at_ms: int,
    ) -> None: ...


class Base(DeclarativeBase):
    """The parent of every table. Tables carry their owner's prefix; no foreign key crosses an owner."""

    registry = registry()


class Database:
    """Hands out transactions.

    A writing transaction on SQLite starts with BEGIN IMMEDIATE, so two writers wait for each other instead of failing
    halfway; a reading one sees one snapshot. Whatever is asked raises `DatabaseDown` where the database does not
    answer within the limits.
    """

    def __init__(self, url: str, limits: TimeLimits = REQUEST_LIMITS, *, pooled: bool = True) -> None:
        """Take a SQLAlchemy async URL: `sqlite+aiosqlite:///<file>` or `postgresql+asyncpg://...`.

        Where connections are not `pooled`, PostgreSQL's end with their transactions.
        """
        self._url = url
        self._limits = limits
        self._engine = _create_engine(url, limits, pooled=pooled)
        self._patient: dict[float, Database] = {}

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
    async def reading(self, *, statement_timeout_s: float | None = None) -> AsyncIterator[AsyncSession]:
        """Open a read-only transaction; nothing written in it is kept.

        A long report says how long each of its statements may take.
        """
        if statement_timeout_s is not None and not self.is_sqlite:
            # The driver's own limit belongs to a connection, so the report has one that no request gets later.
            async with self._with_limit(statement_timeout_s).reading() as session:
                yield session
            return
        async with self._connect("BEGIN") as connection, AsyncSession(bind=connection) as session:
            yield session

    @asynccontextmanager
    async def snapshot(self, *, statement_timeout_s: float) -> AsyncIterator[AsyncSession]:
        """Open a reading transaction of which all statements see the same moment."""
        async with self.reading(statement_timeout_s=statement_timeout_s) as session:
            if not self.is_sqlite:  # there, a reader sees one snapshot anyway
                await session.execute(_SNAPSHOT)
            yield session

    def _with_limit(self, statement_s: float) -> "Database":
        """Return the same database with another limit: always the same object, which has compiled its statements."""
        if statement_s not in self._patient:
            limits = dataclasses.replace(self._limits, statement_s=statement_s)
            self._patient[statement_s] = Database(self._url, limits, pooled=False)
        return self._patient[statement_s]

    @asynccontextmanager
    async def _connect(self, begin: str) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.connect())
            except _NOT_CONNECTED as error:
                raise DatabaseDown(error) from error
            await connection.execution_options(tokenyard_begin=begin)
            yield connection

    async def answers(self) -> bool:
        """Ask it for nothing but an answer; where it gives none this raises `DatabaseDown`."""
        async with self.reading() as session:
            await session.execute(text("SELECT 1"))
        return True

    async def close(self) -> None:
        await self._engine.dispose()


class _RollingBack(SqliteConnection):
    def close(self) -> None:
        # SQLite keeps what is closed amid a statement open, and locked, until the statement's cursor is forgotten:
        # where a request was cancelled, whenever its traceback is (https://sqlite.org/c3ref/close.html).
        try:
            self.rollback()
        finally:
            super().close()


def _create_engine(url: str, limits: TimeLimits, *, pooled: bool) -> AsyncEngine:
    # Errors are logged, and what tenants sent must not be: so they tell the statement without its parameters.
    if url.startswith("sqlite"):
        connect = {"timeout": limits.lock_s, "factory": _RollingBack}
        engine = create_async_engine(url, connect_args=connect, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    else:
        pool: dict[str, Any] = {"poolclass": NullPool}
        if pooled:
            pool = {"pool_size": POOL_SIZE, "pool_timeout": limits.connect_s, "pool_pre_ping": True}
        engine = create_async_engine(url, connect_args=limits.postgres_arguments(), hide_parameters=True, **pool)
    event.listen(engine.sync_engine, "handle_error", raise_outage)
    return engine


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: it would begin them DEFERRED.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    begin = connection.get_execution_options().get("tokenyard_begin", "BEGIN")
    connection.exec_driver_sql(begin)


async def advisory_lock(session: AsyncSession, name: str) -> None:
    """Wait until no other writing transaction holds the lock `name`, and hold it until this one ends.

    SQLite has one writer at a time (`Database.transaction` begins IMMEDIATE), so it needs no lock.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_LOCK, {"name": name})


async def organization_lock(session: AsyncSession, organization: OrganizationId) -> None:
    """Hold the lock of an organization's files and jobs: no job may begin with a file that is being deleted."""
    await advisory_lock(session, f"organization:{organization}")
