"""Writes many rows in one statement, alike on SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

Rows = Sequence[Mapping[str, Any]]


def sql_table(table: type[DeclarativeBase]) -> Table:
    return cast(Table, table.__table__)


def upsert(session: AsyncSession, table: type[DeclarativeBase]) -> "postgresql.Insert | sqlite.Insert":
    """Return an INSERT of the session's dialect, which knows ON CONFLICT."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(sql_table(table))
    return sqlite.insert(sql_table(table))


async def insert(session: AsyncSession, table: type[DeclarativeBase], rows: Rows) -> None:
    """Insert `rows`; one that is there already raises `sqlalchemy.exc.IntegrityError`."""
    if rows:
        await (await session.connection()).execute(sql_table(table).insert(), list(rows))


async def insert_new(session: AsyncSession, table: type[DeclarativeBase], rows: Rows) -> None:
    """Insert those of `rows` that are not there yet."""
    if rows:
        await (await session.connection()).execute(upsert(session, table).on_conflict_do_nothing(), list(rows))


async def add_up(
    session: AsyncSession, table: type[DeclarativeBase], rows: Rows, *, add: Sequence[str], replace: Sequence[str] = ()
) -> None:
    """Insert `rows`; where one is there already, add its `add` columns to it and replace its `replace` columns.

    Sort `rows` by their key: two writers that take rows in different order can block each other on PostgreSQL.
    """
    if not rows:
        return
    statement = upsert(session, table)
    columns = sql_table(table).columns
    changes: dict[str, ColumnElement[Any]] = {name: columns[name] + statement.excluded[name] for name in add}
    changes |= {name: statement.excluded[name] for name in replace}
    keys = [column.name for column in sql_table(table).primary_key]
    await (await session.connection()).execute(
        statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows)
    )
